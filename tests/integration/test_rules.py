"""Every rule on real daemons, against a node that sends ten times the opposite of its update."""

from __future__ import annotations

import contextlib
import json
import sqlite3

import numpy as np
import pytest

from covey.testing.federation import Federation
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]
NODES, ROUNDS = 7, 5
DRILL = ["--attack", "scaled", "--attack-option", "factor=-10"]
STANDS = 0.4
"""Accuracy after the rounds; a guess has 0.1, and the mean ends there."""

RULES = {  # fltrust cuts updates to the length of its own, so it trains on as many examples as a node has
    "median": "options = { f = 1 }",
    "trimmed-mean": "options = { f = 1 }",
    "krum": "options = { f = 1 }",
    "multi-krum": "options = { f = 1 }",
    "bulyan": "options = { f = 1 }",
    "geometric-median": "",
    "centered-clip": "",
    "norm-clip": "",
    "minimum-diameter": "options = { f = 1 }",
    "fltrust": "root_examples = 200",
    "zeno": "root_examples = 50\noptions = { f = 1 }",
    "meamed": "options = { f = 1 }",
    "monna": "root_examples = 200\noptions = { f = 1 }",
    "caf": "options = { f = 1 }",
    "smea": "options = { f = 1 }",
}
BY_DISTANCE = ("monna", "caf", "smea")
SELECTS = ("krum", "multi-krum", "minimum-diameter", "fltrust", "zeno", *BY_DISTANCE)
"""They leave whole updates out, and say which."""


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("rules"), nodes=NODES) as made:
        made.start_coordinator()
        made.join()
        for index in range(NODES):
            made.start_node(index, options=DRILL if index == NODES - 1 else [])
        made.wait_connected(NODES)
        yield made


def train(federation, name, section, rounds=ROUNDS):
    extra = f'[aggregation]\nname = "{name}"\n{section}\n'
    run = federation.submit(spec(name, rounds=rounds, min_nodes=NODES, extra=extra))
    return run, federation.wait(run)["metrics"]["accuracy"]


def test_the_mean_does_not_stand(federation):
    assert train(federation, "mean", "")[1] < STANDS / 2


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_stands(federation, rule):
    run, accuracy = train(federation, rule, RULES[rule])
    assert accuracy > STANDS
    updates = {u["node"]: u for u in federation.admin.round(run, ROUNDS)["updates"]}
    attacker = updates.pop(federation.names[-1])
    assert any(u["verdict"] == "accepted" for u in updates.values())
    if rule in SELECTS:
        assert attacker["verdict"] == "rejected"
        assert attacker["reason"]
        assert attacker["numbers"]
        assert attacker["share"] == 0
    if rule in BY_DISTANCE:
        accepted = [update["numbers"] for update in updates.values() if update["verdict"] == "accepted"]
        assert attacker["numbers"]["distance"] > max(numbers["distance"] for numbers in accepted)


def test_fairness_weighs_each_update_by_its_loss(federation):
    run, _ = train(federation, "q-fedavg", "options = { q = 0.5, learning_rate = 0.1 }", rounds=2)
    updates = federation.admin.round(run, 2)["updates"]
    assert all(update["numbers"]["loss"] > 0 for update in updates)
    assert 0 < sum(update["share"] for update in updates) < 1


@pytest.mark.parametrize(
    ("before", "rule"),
    [
        ('name = "nearest-neighbour-mixing"\noptions = { f = 1 }', "trimmed-mean"),
        ('name = "bucketing"\noptions = { s = 2 }', "centered-clip"),
        ('name = "static-clip"\noptions = { c = 0.5 }', "trimmed-mean"),
        ('name = "arc"\noptions = { f = 1 }', "trimmed-mean"),
    ],
)
def test_a_rule_behind_a_pre_aggregator_stands(federation, before, rule):
    options = RULES[rule]
    assert train(federation, rule, f"{options}\n[[aggregation.pre]]\n{before}")[1] > STANDS / 2


@pytest.mark.parametrize("before", ['name = "static-clip"\noptions = { c = 0.5 }', 'name = "arc"\noptions = { f = 1 }'])
def test_the_share_of_a_clipped_update_that_is_shown_is_the_one_that_was_used(federation, before):
    kept = "[keep]\nversions = 2\nupdates = 1\n"
    run, _ = train(federation, "mean", f"[[aggregation.pre]]\n{before}\n{kept}", rounds=1)
    shares = {update["node"]: update["share"] for update in federation.admin.round(run, 1)["updates"]}
    attacker = shares[federation.names[-1]]
    assert 0 < attacker == min(shares.values()) < max(shares.values()) / 2  # ten times as long as the others
    with contextlib.closing(sqlite3.connect(federation.coordinator_dir / "covey.db")) as database:
        sent = database.execute("SELECT node, parts FROM assignments WHERE run = ?", (run,)).fetchall()
        versions = database.execute("SELECT digest FROM model_versions WHERE run = ? ORDER BY version", (run,))
        (first,), (second,) = versions.fetchall()
    updates = {node: floats(federation, json.loads(parts)[0]["digest"]) for node, parts in sent}
    used = sum(shares[node] * update for node, update in updates.items())
    change = tensors(federation, second) - tensors(federation, first)
    np.testing.assert_allclose(change, used, rtol=1e-4, atol=1e-6)


def floats(federation, digest):
    """The float32 values of an update's file, as float64."""
    return np.fromfile(federation.coordinator_dir / "files" / "artifacts" / digest, dtype="<f4").astype(np.float64)


def tensors(federation, digest):
    """The same of a model's file, in the order of its layout."""
    data = (federation.coordinator_dir / "files" / "artifacts" / digest).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    return np.frombuffer(data[start:], dtype="<f4").astype(np.float64)


def test_a_round_that_the_rule_refuses_goes_to_its_fallback(federation):
    options = 'options = { f = 2, max_subsets = 5 }\n[aggregation.fallback]\nname = "median"'
    run, _ = train(federation, "minimum-diameter", options, rounds=2)
    with contextlib.closing(sqlite3.connect(federation.coordinator_dir / "covey.db")) as database:
        found = database.execute("SELECT detail FROM events WHERE run = ? AND kind = 'fallback-rule'", (run,))
        details = [json.loads(detail) for (detail,) in found]
    assert details == [{"round": n, "rule": "median"} for n in (1, 2)]
