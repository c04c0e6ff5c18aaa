"""Silent, missing and returning nodes; too few of them; and daemons that are told to end."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from covey.artifact import artifact_of_file
from covey.testing.federation import Federation
from covey.testing.launch.processes import wait_until
from tests.integration.specs import BIG, spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("absence"), nodes=3) as made:
        yield made.start()


@pytest.fixture
def federation(shared):
    """Three nodes are connected; each test leaves them so, but for the last one."""
    shared.wait_connected(3)
    return shared


def test_a_silent_node_does_not_hold_the_round_and_joins_a_later_one(federation):
    policy = "quorum = 0.6\ndeadline_s = 2"
    federation.node(2).suspend()
    run = federation.submit(spec("silent", rounds=40, policy=policy))
    federation.wait_round(run, 1)
    detail = federation.admin.round(run, 1)
    verdicts = {u["node"]: u["verdict"] for u in detail["updates"]}
    assert verdicts == {"n0": "accepted", "n1": "accepted", "n2": "late"}
    reason = next(u["reason"] for u in detail["updates"] if u["node"] == "n2")
    assert "deadline" in reason
    federation.node(2).resume()
    federation.until(lambda: any(r["accepted"] == 3 for r in federation.rounds(run)), 60, "n2 never took part again")
    federation.admin.stop_run(run)


def test_with_too_few_nodes_the_run_waits_and_says_so(federation):
    federation.stop_node(2)
    policy = "rejoin_s = 1"
    run = federation.submit(spec("patient", rounds=2, min_nodes=3, policy=policy))
    says = ("needs 3 nodes; 2 connected", "2 of 3 updates; waiting for more nodes")  # n2 may still have been expected
    federation.until(lambda: federation.show(run)["reason"].endswith(says), 30, "the run does not say that it waits")
    assert federation.show(run)["state"] == "running"
    federation.start_node(2)
    assert federation.wait(run)["reason"] == ""


def test_a_killed_node_costs_one_grace_and_returns_later(federation):
    run = federation.submit(spec("grace", rounds=2000, policy="rejoin_s = 1"))
    federation.wait_round(run, 1)
    federation.kill_node(2)
    federation.until(
        lambda: any(r["state"] == "committed" and r["accepted"] == 2 for r in federation.rounds(run)),
        60,
        "no round was closed without n2",
    )
    without = len(federation.rounds(run))
    federation.start_node(2)
    federation.until(
        lambda: any(r["accepted"] == 3 for r in federation.rounds(run)[without:]), 60, "n2 never took part again"
    )
    federation.admin.stop_run(run)


@pytest.mark.parametrize("who", ["coordinator", "node"])
def test_sigterm_however_often_ends_a_daemon_and_its_worker_within_seconds(federation, who):
    run = federation.submit(spec("interrupted", rounds=3, **BIG))
    federation.wait_round(run, 1)
    worker = psutil.Process(federation.worker_pids["coordinator" if who == "coordinator" else "n0"])
    began = time.monotonic()
    daemon = federation.coordinator if who == "coordinator" else federation.node(0)
    assert wait_until(lambda: told_once_more(daemon), 15)
    assert daemon.exit_code == 0
    assert time.monotonic() - began < 15  # its own grace is one second; the rest is a busy machine
    assert not worker.is_running()
    folder = federation.coordinator_dir if who == "coordinator" else federation.node_dir(0)
    for path in (folder / "files" / "artifacts").iterdir():
        assert artifact_of_file(path).digest == path.name  # nothing half-written under a final name
    if who == "coordinator":
        federation.start_coordinator()
    else:
        federation.start_node(0)
    assert federation.wait(run)["rounds_committed"] == 3


def told_once_more(daemon):
    """Whether it has ended; else it is told to, in whatever it is doing for its end."""
    daemon.send(signal.SIGTERM)
    return not daemon.alive


def test_an_evicted_node_is_out_at_once(federation):
    run = federation.submit(spec("eviction", rounds=100, policy="rejoin_s = 1"))
    federation.wait_round(run, 1)
    federation.node(2).may_die = True
    federation.admin.evict("n2")
    assert federation.node(2).wait(20) == 1
    assert "evicted" in federation.node(2).tail()
    federation.start_node(2).may_die = True
    assert federation.node(2).wait(20) == 1  # it stays out
    assert federation.show(run)["state"] == "running"
    federation.admin.stop_run(run)
    assert os.path.isdir(federation.node_dir(2))
