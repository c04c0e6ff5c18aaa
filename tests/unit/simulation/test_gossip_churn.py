"""Nodes that are killed and come back, join late, and are cut off, in simulated runs with real training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import covey
from covey.cli.main import covey as command
from covey.client.experiments.gossip import GossipOutcome, Network, Partition, gossip_plan, simulate
from covey.errors import SpecError
from covey.gossip.mass import ONE
from tests.unit.simulation.in_process import work_here

SPEC = """
name = "churn"
mode = "gossip"
seed = 3
[task]
name = "digits"
[data]
partition = "shards"
[training]
local_steps = 1
learning_rate = 0.1
[gossip]
steps = 8
"""
AGP = 'protocol = "agp"\n'
RECEIVER = 'protocol = "d-psgd"\ntopology = { name = "ring" }\nmixing = { name = "metropolis-hastings" }\n'
HALVES = (frozenset({"n0", "n1"}), frozenset({"n2", "n3"}))


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    work_here(monkeypatch)


def run(tmp_path: Path, more: str = "", nodes: int = 4, **network: Any) -> GossipOutcome:
    plan = gossip_plan(SPEC + more, nodes, network=Network(**network), data_dir=tmp_path / "run", processes=1)
    return simulate(plan)


def ends(outcome: GossipOutcome) -> dict[str, tuple[str, int]]:
    return {peer.node: (peer.reason, peer.steps) for peer in outcome.peers}


def shas(outcome: GossipOutcome) -> list[str]:
    return [peer.model_sha256 for peer in outcome.peers]


def require_all_there(outcome: GossipOutcome, nodes: float = 4, steps: int = 8) -> None:
    """Everybody made all steps; all mass is live, to the unit."""
    mass = outcome.mass
    assert set(ends(outcome).values()) == {("completed", steps)}
    assert (mass.is_exact, mass.in_flight, mass.lost, mass.uncertain) == (True, 0, 0, 0)
    if mass.weighs == "mass":
        assert mass.live == mass.minted == nodes * ONE


def test_who_is_back_before_it_is_missed_changes_no_bit_in_lock_step(tmp_path: Path) -> None:
    undisturbed = run(tmp_path)
    killed: Mapping[str, Any] = {"dies": {"n1": 3}, "returns": {"n1": 4.9}}
    cut_off: Mapping[str, Any] = {"partitions": (Partition(HALVES, 2.5, 4.0),), "loss": 0.1, "delay": 0.2}
    for network in (killed, cut_off):
        disturbed = run(tmp_path, **network)
        require_all_there(disturbed)
        assert shas(disturbed) == shas(undisturbed)
        assert disturbed.virtual_time > undisturbed.virtual_time


@pytest.mark.parametrize("more", ["", AGP, RECEIVER])
def test_who_is_missed_goes_on_from_its_record_and_the_others_without_it(tmp_path: Path, more: str) -> None:
    outcome = run(tmp_path, more, dies={"n1": 3}, returns={"n1": 9.0}, loss=0.1)
    require_all_there(outcome)
    assert len(set(shas(outcome))) > 1  # the others did not wait


@pytest.mark.parametrize("more", ["", AGP, RECEIVER])
def test_two_sides_that_suspect_each_other_heal(tmp_path: Path, more: str) -> None:
    outcome = run(tmp_path, more, partitions=(Partition(HALVES, 2.5, 6.5),))
    require_all_there(outcome)
    assert outcome.lost_messages > 0
    require_all_there(run(tmp_path, more, partitions=(Partition(HALVES, 2.5, 30.0),)))  # longer than all steps take


def test_two_who_leave_at_the_same_moment_leave_and_all_their_mass_stays(tmp_path: Path) -> None:
    more = 'topology = { name = "complete" }\n'
    outcome = run(tmp_path, more, leaves={"n0": 3, "n1": 3})
    assert ends(outcome) == {"n0": ("left", 3), "n1": ("left", 3), "n2": ("completed", 8), "n3": ("completed", 8)}
    assert (outcome.mass.is_exact, outcome.mass.live, outcome.mass.in_flight) == (True, 4 * ONE, 0)


def test_who_dies_takes_its_mass_and_who_leaves_hands_it_over(tmp_path: Path) -> None:
    outcome = run(tmp_path, nodes=5, dies={"n1": 3}, leaves={"n3": 4})
    rest = dict.fromkeys(("n0", "n2", "n4"), ("completed", 8))
    assert ends(outcome) == rest | {"n1": ("died", 3), "n3": ("left", 4)}
    assert outcome.mass.is_exact
    assert outcome.mass.live + outcome.mass.lost == outcome.mass.minted == 5 * ONE
    assert outcome.mass.lost > 0


def test_without_waiting_a_slow_node_makes_fewer_steps_that_count_for_as_much(tmp_path: Path) -> None:
    outcome = run(tmp_path, AGP + 'rate_correction = "asyspa"\n', nodes=3, speeds={"n1": 0.25})
    slow = ends(outcome).pop("n1")
    assert slow[1] < 8
    assert ends(outcome) == {"n0": ("completed", 8), "n1": ("completed", slow[1]), "n2": ("completed", 8)}
    assert (outcome.mass.is_exact, outcome.mass.in_flight) == (True, 0)
    assert [peer.blocked for peer in outcome.peers if peer.node != "n1"] == [0.0, 0.0]  # nobody waited for the slow one


def test_pairs_come_to_one_model_although_one_is_slow_and_messages_are_lost(tmp_path: Path) -> None:
    more = 'protocol = "ad-psgd"\ntopology = { name = "random", options = { peers = 1 } }\n'
    text = SPEC.replace("local_steps = 1", "local_steps = 5").replace("steps = 8", "steps = 24")
    network = Network(0.2, 0.2, {"n1": 0.5})
    outcome = simulate(gossip_plan(text + more, 4, network=network, data_dir=tmp_path / "run", processes=1))
    assert {peer.reason for peer in outcome.peers} == {"completed"}
    assert (outcome.mass.is_exact, outcome.mass.in_flight, outcome.mass.live) == (True, 0, 4 * ONE)
    assert outcome.lost_messages > 0
    assert [peer.blocked for peer in outcome.peers] == [0.0] * 4
    assert outcome.metrics["accuracy"] > 0.5


def test_who_joins_has_mass_of_its_own_or_half_of_another_one_s(tmp_path: Path) -> None:
    founders = {f"n{index}": ("completed", 8) for index in range(4)}
    minted, split = (
        run(tmp_path, f'join = "{join}"\n', nodes=5, joins={"n4": 3.5}, loss=0.1) for join in ("mint", "split")
    )
    for outcome, nodes in ((minted, 5), (split, 4)):
        assert ends(outcome) == founders | {"n4": ("completed", 8)}
        assert outcome.mass.is_exact
        assert outcome.mass.live == outcome.mass.minted == nodes * ONE
        assert outcome.peers[4].weight > 0
        assert 0 < outcome.peers[4].trained < 8  # it came in where the others were
    receiving = run(tmp_path, RECEIVER, nodes=5, joins={"n4": 3.5})
    assert (ends(receiving)["n4"], receiving.mass.is_exact) == (("completed", 8), True)


def test_one_that_comes_when_all_is_over_has_not_joined(tmp_path: Path) -> None:
    outcome = run(tmp_path, nodes=3, joins={"n2": 500.0})
    assert ends(outcome)["n2"] == ("not joined", 0)
    assert outcome.virtual_time < 20
    assert outcome.mass.minted == 2 * ONE


@pytest.mark.parametrize("more", ["", AGP, 'protocol = "ad-psgd"\n', RECEIVER])
def test_random_kills_lose_no_mass_and_are_the_same_again(tmp_path: Path, more: str) -> None:
    first, again = (run(tmp_path, more, nodes=3, churn=0.2, loss=0.1, delay=0.3) for _ in range(2))
    assert {peer.reason for peer in first.peers} == {"completed"}
    assert (first.mass.is_exact, first.mass.in_flight, first.mass.lost) == (True, 0, 0)
    assert shas(first) == shas(again)
    assert first.virtual_time > run(tmp_path, more, nodes=3, loss=0.1, delay=0.3).virtual_time


def test_all_at_once(tmp_path: Path) -> None:
    outcome = run(
        tmp_path,
        nodes=6,
        dies={"n1": 3, "n3": 5},
        returns={"n1": 12.0},
        leaves={"n2": 4},
        joins={"n5": 3.0},
        partitions=(Partition((frozenset({"n0"}), frozenset({"n4", "n5"})), 4.0, 9.0),),
        loss=0.1,
    )
    reasons = {name: reason for name, (reason, _) in ends(outcome).items()}
    assert reasons == dict.fromkeys(("n0", "n1", "n4", "n5"), "completed") | {"n2": "left", "n3": "died"}
    assert outcome.mass.is_exact
    assert outcome.mass.live + outcome.mass.lost == outcome.mass.minted


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"returns": {"n1": 4.0}}, "--returns n1: it does not die; say when, with --dies n1=STEP"),
        ({"joins": {"n9": 1.0}}, "--joins n9: the nodes are n0 to n3"),
        ({"joins": {"n1": 1.0, "n2": 1.0, "n3": 1.0}}, "the run begins with 1 nodes, and needs 2"),
        ({"partitions": (Partition((frozenset({"n0"}),), 1, 2),)}, "two sides or more"),
        ({"partitions": (Partition((frozenset({"n0"}), frozenset({"n0", "n1"})), 1, 2),)}, "n0 is on two sides"),
        ({"partitions": (Partition(HALVES, 2, 2),)}, "it ends at 2, and begins at 2"),
        ({"partitions": (Partition((frozenset({"n0"}), frozenset({"x"})), 1, 2),)}, "--partition x"),
        ({"churn": 1.5}, "--churn 1.5"),
        ({"dies": {"n0": 1, "n1": 1}, "leaves": {"n2": 1, "n3": 1}}, "at least one node must be there"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, network: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as refused:
        run(tmp_path, **network)
    assert message in str(refused.value)
    assert not (tmp_path / "run").exists()


# -- the commands ------------------------------------------------------------------------------------------------------


def invoke(tmp_path: Path, *words: str, text: str = SPEC) -> Any:
    (tmp_path / "spec.toml").write_text(text)
    where = ["--data-dir", str(tmp_path / "out"), "--processes", "1", "--json"]
    words = tuple(str(tmp_path / "spec.toml") if word == "SPEC" else word for word in words)
    return CliRunner().invoke(command, [*words, *where])


def test_both_commands_do_the_same_with_the_same_options(tmp_path: Path) -> None:
    options = ("SPEC", "--nodes", "4", "--dies", "n1=3", "--returns", "n1=6", "--partition", "n0/n2,n3=2-6")
    outcomes = []
    for words in (("simulate", *options), ("gossip", "simulate", *options)):
        done = invoke(tmp_path, *words)
        assert done.exit_code == 0, done.stderr
        outcomes.append({key: value for key, value in json.loads(done.stdout).items() if key != "seconds"})
    assert outcomes[0] == outcomes[1]
    assert outcomes[0]["mass"]["exact"]
    assert outcomes[0]["lost_messages"] > 0


@pytest.mark.parametrize(
    ("options", "text", "message"),
    [
        (("--staleness", "normal:6,2"), SPEC, "--staleness: only of mode async"),
        (("--events", "."), SPEC, "--events: there is no coordinator"),
        (("--loss", "0.1", "--churn", "0.1"), 'name = "x"\n[task]\nname = "digits"\n', "--loss: only of mode gossip"),
    ],
)
def test_options_of_another_mode_are_refused(tmp_path: Path, options: tuple[str, ...], text: str, message: str) -> None:
    done = invoke(tmp_path, "simulate", "SPEC", "--nodes", "4", *options, text=text)
    assert done.exit_code == 1
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--joins", "n1"), "write NODE=NUMBER"),
        (("--joins", "n1=soon"), "'soon' is no number"),
        (("--joins", "n1=inf"), "'inf' has no end"),
        (("--dies", "n1=0"), "it must be above 0"),
        (("--partition", "n0/n1"), "write NODE,NODE/NODE,NODE=FROM-TO"),
        (("--partition", "n0/n1=3"), "write NODE,NODE/NODE,NODE=FROM-TO"),
        (("--partition", "n0/n1=3-x"), "'x' is no number"),
    ],
)
def test_wrong_usage_is_said(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    done = invoke(tmp_path, "simulate", "SPEC", "--nodes", "4", *words)
    assert done.exit_code == 2
    assert message in done.stderr


def test_in_python_a_gossip_run_gives_what_came_of_each_node(tmp_path: Path) -> None:
    outcome = covey.simulate(SPEC, 3, data_dir=tmp_path / "run", processes=1, network=Network(loss=0.1))
    assert isinstance(outcome, GossipOutcome)
    require_all_there(outcome, nodes=3)
    assert (outcome.folder / "mean.safetensors").exists()
