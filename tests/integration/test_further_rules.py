"""The rules that other libraries have too, through a whole simulation with a node that sends the opposite."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
NODES, ROUNDS = 7, 3
ADVERSARY = "n6"
LEARNS = 0.3
"""Accuracy after the rounds; a guess has 0.1, and the first model about that."""

RULES = {
    "meamed": "options = { f = 1 }",
    "monna": "root_examples = 100\noptions = { f = 1 }",
    "caf": "options = { f = 1 }",
    "smea": "options = { f = 1 }",
    "q-fedavg": "options = { q = 0.5, learning_rate = 0.1 }",
}
SELECTS = ("monna", "caf", "smea")
"""They leave whole updates out, and say which."""
BEFORE = {"static-clip": "options = { c = 0.5 }", "arc": "options = { f = 1 }"}


def covey(*arguments: object) -> str:
    line = [sys.executable, "-m", "covey.cli.main", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout


def simulated(tmp_path, section: str) -> tuple[float, dict[str, dict]]:
    """The accuracy, and the updates of the last round by node."""
    path, where = tmp_path / "spec.toml", tmp_path / "simulation"
    path.write_text(spec(rounds=ROUNDS, min_nodes=NODES, extra=f"[aggregation]\n{section}\n"))
    attack = ["--attack", "sign-flip=1"]
    outcome = json.loads(covey("simulate", path, "--data-dir", where, "--nodes", NODES, *attack, "--json"))
    assert outcome["run"]["state"] == "completed"
    shown = json.loads(covey("round", "show", outcome["run"]["run"], ROUNDS, "--json", "--data-dir", where))
    return outcome["run"]["metrics"]["accuracy"], {update["node"]: update for update in shown["updates"]}


@pytest.mark.parametrize("rule", RULES)
def test_a_run_with_the_rule_learns(tmp_path, rule):
    accuracy, updates = simulated(tmp_path, f'name = "{rule}"\n{RULES[rule]}')
    assert accuracy > LEARNS
    accepted = [node for node, update in updates.items() if update["verdict"] == "accepted"]
    assert len(accepted) >= NODES - 2
    if rule in SELECTS:
        assert ADVERSARY not in accepted
        assert updates[ADVERSARY]["reason"]
        assert updates[ADVERSARY]["numbers"]["distance"] > max(
            updates[node]["numbers"]["distance"] for node in accepted
        )
    if rule == "q-fedavg":
        assert all(update["numbers"]["loss"] > 0 for update in updates.values())
        assert 0 < sum(update["share"] for update in updates.values()) < 1


@pytest.mark.parametrize("before", BEFORE)
def test_a_run_with_clipped_updates_learns(tmp_path, before):
    section = f'name = "trimmed-mean"\noptions = {{ f = 1 }}\n[[aggregation.pre]]\nname = "{before}"\n{BEFORE[before]}'
    accuracy, updates = simulated(tmp_path, section)
    assert accuracy > LEARNS
    shares = [update["share"] for update in updates.values()]
    assert 0 < min(shares) < max(shares)
