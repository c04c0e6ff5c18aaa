"""Chaos without processes: strikes follow from the seed, runs can be submitted, and what does not hold is found."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from covey.plugins import by_path
from covey.spec import GossipSpec
from covey.spec.parse import parse_toml
from covey.storage.record.records import StepRecord
from covey.testing.chaos.__main__ import main
from covey.testing.chaos.chase import Outcome, Plan
from covey.testing.chaos.checks import judged_twice
from covey.testing.chaos.faults import DOERS
from covey.testing.chaos.figures import Disk, Figures, Held, growth
from covey.testing.chaos.gossip.report import GossipReport
from covey.testing.chaos.gossip.trial import PROTOCOLS, GossipOutcome, GossipPlan, problems_of
from covey.testing.chaos.kinds import AMONG_PEERS, FEDERATED, KINDS
from covey.testing.chaos.report import as_json, command_of
from covey.testing.chaos.schedule import COORDINATOR, EVERYBODY, Strike, strikes
from covey.testing.chaos.works import WORKS, Work

NODES = ["n0", "n1", "n2"]


def first(count: int, seed: int, *kinds: str) -> list[Strike]:
    return list(itertools.islice(strikes(seed, NODES, kinds or tuple(KINDS)), count))


def test_strikes_follow_from_the_seed_alone() -> None:
    assert first(50, 7) == first(50, 7)
    assert first(50, 7) != first(50, 8)


def test_every_kind_is_drawn_and_can_be_done_and_strikes_whom_it_should() -> None:
    assert KINDS.keys() == DOERS.keys()
    drawn = first(1000, 1)
    assert {strike.kind for strike in drawn} == KINDS.keys()
    whom = {"coordinator": {COORDINATOR}, "node": set(NODES), "any": {COORDINATOR, *NODES}, "all": {EVERYBODY}}
    for name, kind in KINDS.items():
        mine = [strike for strike in drawn if strike.kind == name]
        assert {strike.target for strike in mine} == whom[kind.strikes]
        assert all(kind.least_s <= strike.lasts_s <= kind.most_s for strike in mine)


def test_where_there_is_no_coordinator_nodes_are_struck() -> None:
    drawn = list(itertools.islice(strikes(1, NODES, AMONG_PEERS, coordinator=False), 1000))
    assert {strike.kind for strike in drawn} == set(AMONG_PEERS)
    assert {strike.target for strike in drawn} == {*NODES, EVERYBODY}


def test_strikes_can_last_longer() -> None:
    stretched = list(itertools.islice(strikes(7, NODES, stretch=10.0), 50))
    assert [strike.lasts_s for strike in stretched] == [10.0 * strike.lasts_s for strike in first(50, 7)]


def test_only_what_was_chosen_is_drawn() -> None:
    assert {strike.kind for strike in first(50, 1, "kill-node", "suspend")} == {"kill-node", "suspend"}


@pytest.mark.parametrize("work", WORKS.values(), ids=list(WORKS))
@pytest.mark.parametrize("keep_all", [True, False])
def test_every_run_can_be_submitted(work: Work, keep_all: bool) -> None:
    with by_path(True):
        spec = parse_toml(work.spec_toml("x", rounds=5, nodes=3, parameters=10, keep_all=keep_all))
    assert spec.name == "x"
    assert spec.keep.updates == (1_000_000 if keep_all else 1)
    assert spec.rounds_in_all == (30 if work.mode == "async" else 5)


HELD = Held(memory_bytes=80_000_000, descriptors=30, threads=10)
DISK = Disk(record=1, artifacts=1, artifact_files=1, spool_files=0, events=0, node=1_000_000)
BEFORE = Figures(1.0, lap=0, rounds=10, settled=True, held={"n0": HELD}, disk=DISK)


@pytest.mark.parametrize(
    ("held", "disk", "found"),
    [
        ({}, {}, []),
        ({"descriptors": 54, "threads": 26}, {"record": 10**9, "events": 10**9}, []),
        ({"descriptors": 55}, {}, ["n0 holds 55 descriptors; before it was 30"]),
        ({"threads": 27}, {}, ["n0 holds 27 threads; before it was 10"]),
        ({"memory_bytes": 150_000_000}, {}, ["n0 holds 150,000,000 memory_bytes; before it was 80,000,000"]),
        ({}, {"spool_files": 2}, ["2 unfinished files are left in the coordinator's spool"]),
        ({}, {"node": 4_000_000}, ["a node's folder has 4,000,000 bytes; before it was 1,000,000"]),
    ],
)
def test_what_grows_is_found(held: dict[str, int], disk: dict[str, int], found: list[str]) -> None:
    now = replace(BEFORE, held={"n0": replace(HELD, **held)}, disk=replace(DISK, **disk))
    assert list(growth(BEFORE, now)) == found


def step(number: int, *verdicts: tuple[int, str, str]) -> StepRecord:
    judged = tuple({"round": of, "node": node, "verdict": verdict} for of, node, verdict in verdicts)
    return StepRecord("run", number, (), newest=0, version=None, roster=2, verdicts=judged, decided_at=0.0)


def test_an_update_that_counts_twice_is_found() -> None:
    held_first = [step(1, (1, "n0", "held")), step(2, (1, "n0", "accepted"), (2, "n1", "accepted")), step(3)]
    assert list(judged_twice(held_first, "x")) == []
    again = [*held_first, step(4, (2, "n1", "rejected"))]
    assert list(judged_twice(again, "x")) == ["x: the update of n1 to 2 (phase 1) was decided on 2 times"]


def test_a_report_says_how_to_repeat_it(tmp_path) -> None:
    plan = Plan(tmp_path, seed=3, works=["rounds"], kinds=["kill-node"], keep_all=False)
    said = as_json(plan, Outcome(problems=["something"]), "somewhere")
    assert (said["ok"], said["problems"], said["kept"]) == (False, ["something"], "somewhere")
    words = "python -m covey.testing.chaos --seed 3 --minutes 2 --nodes 3 --rounds 40 --pause 1.5"
    assert said["command"] == command_of(plan) == words + " --works rounds --faults kill-node --retain"


def test_help_has_examples_runs_and_faults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "python -m covey.testing.chaos --seed 7" in printed
    assert all(name in printed for name in [*WORKS, *PROTOCOLS, *KINDS])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--works", "gossip", "rounds"], "gossip has nodes of its own, and runs alone"),
        (["--works", "gossip", "--rounds", "5"], "--rounds says nothing about gossip runs"),
        (["--works", "gossip", "--faults", "lose-data"], "lose-data cannot strike here; choose of kill-node"),
        (["--works", "gossip", "--loss", "1"], "from 0 to less than 1"),
        (["--works", "rounds", "--pace", "1"], "--pace says nothing about runs of a coordinator"),
        (["--faults", "full-disk"], "full-disk cannot strike here; choose of kill-coordinator"),
    ],
)
def test_what_does_not_go_together_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("work", PROTOCOLS)
def test_gossip_runs_have_a_specification_and_a_step_for_each_training_that_fits_in(tmp_path, work: str) -> None:
    plan = GossipPlan(tmp_path, 1, minutes=0.5, nodes=4, work=work, pace_s=0.25)
    with by_path(True):
        spec = parse_toml(plan.spec_toml)
    assert isinstance(spec, GossipSpec)
    assert (spec.gossip.steps, spec.min_nodes, plan.steps) == (140, 4, 140)


def strike_at(at: float, kind: str, target: str, lasts_s: float) -> tuple[float, Strike]:
    return at, Strike(1, 1.0, kind, target, lasts_s, 0.5, "up")


def test_goodput_and_faults_of_gossip_nodes_are_counted() -> None:
    struck = [strike_at(1.0, "kill-node", "n0", 1.0), strike_at(9.0, "suspend-everything", EVERYBODY, 2.0)]
    outcome = GossipOutcome(seconds=36.0, steps=97, undisturbed_steps=100, struck=struck)
    assert outcome.goodput == 0.97
    assert outcome.a_node_and_hour(4) == pytest.approx((1 + 4) / 4 / 0.01)


def test_a_report_on_gossip_says_how_to_repeat_it(tmp_path) -> None:
    plan = GossipPlan(tmp_path, seed=3, loss=0.2, kinds=["kill-node"], work="gossip-pairs", pace_s=0.5)
    said = GossipReport(plan, GossipOutcome(problems=["something"])).as_json("somewhere")
    assert (said["ok"], said["problems"], said["kept"]) == (False, ["something"], "somewhere")
    words = "python -m covey.testing.chaos --works gossip-pairs --seed 3 --minutes 2 --nodes 6 --pace 0.5 --loss 0.2"
    assert said["command"] == words + " --faults kill-node"
    assert set(AMONG_PEERS) - set(FEDERATED) == {"cut-in-halves", "full-disk"}


def test_mass_that_is_missing_or_has_not_arrived_is_a_problem() -> None:
    whole = {"exact": True, "findings": [], "named": [], "live": 3 << 52, "minted": 3 << 52, "lost": 0, "in_flight": 0}
    assert list(problems_of(whole, 3)) == []
    assert len(list(problems_of({**whole, "exact": False}, 3))) == 1
    assert len(list(problems_of({**whole, "live": 2 << 52}, 3))) == 1
    assert len(list(problems_of({**whole, "in_flight": 1}, 3))) == 1
    assert len(list(problems_of(whole, 4))) == 1
