"""Privacy on real daemons: what is spent, a budget that ends a run, a floor that declines it, and a kill in between."""

from __future__ import annotations

import json

import pytest

from covey.learning.privacy import spent_by
from covey.spec import parse_toml
from covey.testing.federation import Federation
from covey.testing.launch.forks import run_covey

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

SPEC = """
name = "{name}"
seed = 3
[task]
name = "digits"
options = {{ hidden = 8 }}
[training]
learning_rate = 0.5
local_steps = 3
[rounds]
count = {count}
min_nodes = {nodes}
rejoin_s = 200
[evaluation]
every = 0
[privacy]
unit = "example"
clip = 1.0
noise = 1.5
sampling = 0.2
{more}
"""
FLOOR, BUDGET = 2.2, 2.5
"""Two rounds spend less than the one, three less than the other."""


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("privacy"), nodes=3) as made:
        made.start_coordinator()
        made.join([0, 1])
        made.start_node(0)
        made.start_node(1)
        made.wait_connected(2)
        yield made


def spent_in(federation, index):
    path = federation.node_dir(index) / "state" / "privacy.json"
    return json.loads(path.read_text())["private_updates"] if path.exists() else {}


UNITS = {"example": "reproducible = true", "node": 'reproducible = true\n[weights]\nby = "equal"'}


@pytest.mark.parametrize("unit", UNITS)
def test_a_reproducible_run_is_that_of_a_simulation_and_does_not_call_itself_private(federation, unit, tmp_path):
    text = SPEC.format(name=f"{unit}s", count=2, nodes=2, more=UNITS[unit])
    if unit == "node":
        text = text.replace('"example"', '"node"').replace("sampling = 0.2\n", "")
    run = federation.submit(text)
    (tmp_path / "spec.toml").write_text(text)
    arguments = ["simulate", tmp_path / "spec.toml", "--nodes", 2, "--processes", 1, "--json"]
    done = run_covey([*arguments, "--data-dir", tmp_path / "record"], timeout_s=200)
    assert done.returncode == 0, done.stderr
    simulated = json.loads(done.stdout)["run"]
    shown = federation.wait(run)
    assert shown["model_sha256"] == simulated["model_sha256"]
    assert shown["metrics"] == simulated["metrics"]
    spent = f"epsilon = {shown['metrics']['privacy/simulated-epsilon']:.3g} (delta = 1e-05) for each {unit}"
    assert f"privacy: after 2 rounds, all of them, it has spent {spent}" in done.stderr
    assert set(shown["metrics"]) == {"privacy/simulated-epsilon", "privacy/delta"}
    assert run not in spent_in(federation, 0)


def test_a_budget_ends_a_run_a_floor_declines_it_and_what_is_spent_outlasts_a_kill(federation, tmp_path):
    """Node 0 is killed when it has spent its second round; node 2's operator allows less than the run's budget."""
    federation.join([2])
    federation.node_dir(2).joinpath("node.toml").write_text(f"[policy]\nmax_epsilon = {FLOOR}\n")
    federation.start_node(2)
    federation.stop_node(0)
    federation.start_node(0, env={"COVEY_FAULTS": "journaled:2"})
    federation.wait_connected(3)
    text = SPEC.format(name="private", count=9, nodes=2, more=f"[stop]\nepsilon = {BUDGET}")
    (tmp_path / "run.toml").write_text(text)
    where = ["--data-dir", federation.coordinator_dir]
    submitted = json.loads(federation.cli("run", "submit", tmp_path / "run.toml", "--json", *where))
    run, forecast = submitted["run"], submitted["privacy"]
    assert federation.node(0).wait(100) == -9
    assert spent_in(federation, 0) == {run: 2}
    federation.start_node(0)
    shown, spec = federation.wait(run), parse_toml(text)
    assert spec.privacy is not None
    epsilons = [spent_by(spec.privacy, spec.training, number).epsilon for number in (1, 2, 3, 4)]
    assert epsilons[1] < FLOOR < epsilons[2] < BUDGET < epsilons[3]
    assert (shown["state"], shown["rounds_committed"]) == ("completed", 3)
    assert shown["reason"] == f"one round more would spend more than [stop] epsilon = {BUDGET}"
    assert shown["metrics"] == {"privacy/epsilon": pytest.approx(epsilons[2]), "privacy/delta": 1e-5}
    assert forecast == {
        "epsilon": pytest.approx(epsilons[2]),
        "delta": 1e-5,
        "unit": "example",
        "rounds": 3,
        "is_secret": True,
    }
    assert f"[stop] epsilon = {BUDGET} ends the run after round 3 of 9, when it has spent" in submitted["reason"]
    for number in (1, 2, 3):
        updates = {update["node"]: update for update in federation.admin.round(run, number)["updates"]}
        declines = number == 3
        verdicts = [updates[name]["verdict"] for name in federation.names]
        assert verdicts == ["accepted", "accepted", "declined" if declines else "accepted"]
        assert updates[federation.names[0]]["metrics"]["privacy/epsilon"][0] == pytest.approx(epsilons[number - 1])
    assert "2.2 is allowed ([policy] max_epsilon in node.toml)" in updates[federation.names[2]]["reason"]
    # What the killed node had finished was sent, and no round was spent twice.
    assert [spent_in(federation, index) for index in range(3)] == [{run: 3}, {run: 3}, {run: 2}]
    assert "every signature is valid" in federation.cli("run", "audit", run, *where)
    assert "one round more would spend" in federation.cli("run", "show", run, *where)
    checked = federation.cli("node", "check", "--spec", tmp_path / "run.toml", "--data-dir", federation.node_dir(2))
    assert f"privacy: [stop] epsilon = {BUDGET} ends the run after round 3 of 9" in checked
    assert "warning: from round 3 of 3 on this node would decline" in checked
