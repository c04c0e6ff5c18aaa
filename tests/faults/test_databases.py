"""The coordinator's database is locked by another program, or its disk becomes read-only, in the middle of a run."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from covey.testing.federation import Federation, FederationError
from tests.faults.disks import breakable_disk
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]
QUICK = {"task": "synthetic", "rounds": 4, "policy": "deadline_s = 600.0"}
SLOW = {**QUICK, "options": "train_seconds = 0.3"}
"""The same training, with time in it for what goes wrong."""
LOCK_S = 30.0


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("databases"), nodes=2) as made:
        yield made.start()


def all_committed(federation, run):
    return [(r["state"], r["attempt"], r["accepted"]) for r in federation.rounds(run)] == [("committed", 1, 2)] * 4


def says(federation, run, words):
    """Wait until a run's reason says something."""
    federation.until(lambda: words in federation.show(run)["reason"], 60, f"it does not say {words!r}")


def test_a_database_that_another_program_locks_is_waited_for(federation):
    undisturbed = federation.wait(federation.submit(spec("locked", **QUICK)))["model_sha256"]
    run = federation.submit(spec("locked", **SLOW))
    federation.wait_round(run, 1)
    with contextlib.closing(sqlite3.connect(federation.coordinator_dir / "covey.db", timeout=LOCK_S)) as other:
        other.execute("BEGIN IMMEDIATE")
        says(federation, run, "covey.db cannot be used now: ")
        other.rollback()
    assert federation.wait(run)["model_sha256"] == undisturbed
    assert all_committed(federation, run)


def test_a_disk_that_becomes_read_only_is_waited_for_and_said(tmp_path):
    """As Linux does with a disk that fails: every write is refused from then on, also in files that are open."""
    root = tmp_path / "federation"
    with (
        breakable_disk(root / "coordinator") as of_coordinator,
        breakable_disk(root / "nodes" / "n1") as of_node,
        Federation(root, nodes=2) as federation,
    ):
        federation.start()
        undisturbed = federation.wait(federation.submit(spec("read-only", **QUICK)))["model_sha256"]
        run = federation.submit(spec("read-only", **SLOW))
        federation.wait_round(run, 1)
        of_node.fail()
        says(federation, run, "n1 waits: cannot write ")
        federation.kill_node(1)
        of_node.mend()
        federation.start_node(1)
        federation.wait_round(run, 2)
        of_coordinator.fail()
        says(federation, run, "waiting: ")
        federation.kill_coordinator()
        where = ["--data-dir", federation.coordinator_dir, "--listen", federation.coordinator_address]
        with pytest.raises(FederationError, match=r"exit code 1\n.* cannot be used \(Read-only file system\)"):
            federation.cli("coordinator", "start", *where, "--enrol-listen", federation.enrol_address)
        of_coordinator.mend()
        federation.start_coordinator()
        assert federation.wait(run)["model_sha256"] == undisturbed
        assert all_committed(federation, run)
