"""What a node tells its coordinator of its room for runs."""

from __future__ import annotations

from covey.node.operator import capacity
from covey.node.operator.config import Limits, NodeConfig, NodeSettings
from covey.node.operator.policy import Policy

GIB = 1 << 30


def config(folder, **settings):
    return NodeConfig(folder, settings=NodeSettings(**settings))


def test_one_run_for_each_gib_that_is_free_or_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(capacity, "free_memory", lambda: 6 * GIB + 1)
    assert capacity.most_runs(config(tmp_path)) == 6
    assert capacity.most_runs(config(tmp_path, limits=Limits(memory_gib=2))) == 2
    assert capacity.memory_for_runs(config(tmp_path, limits=Limits(memory_gib=2))) == 2 * GIB
    assert capacity.most_runs(config(tmp_path, limits=Limits(memory_gib=0.1))) == 1
    assert capacity.most_runs(config(tmp_path, policy=Policy(max_runs=9))) == 9
    monkeypatch.setattr(capacity, "free_memory", lambda: 600 * GIB)
    assert capacity.most_runs(config(tmp_path)) == capacity.MOST_RUNS


def test_a_machine_that_does_not_say_has_no_limit(tmp_path, monkeypatch):
    assert capacity.free_memory() > 0
    monkeypatch.setattr(capacity, "free_memory", lambda: 0)
    assert (capacity.most_runs(config(tmp_path)), capacity.memory_for_runs(config(tmp_path))) == (0, 0)
    assert capacity.memory_for_runs(config(tmp_path, limits=Limits(memory_gib=2))) == 2 * GIB
