"""A record goes to another database with `store copy`, or into a backup and out again, while runs are half-way."""

from __future__ import annotations

import json
import os
from contextlib import closing

import pytest

from covey.coordinator.config import sqlite_url
from covey.protos.admin_pb2 import BackupRequest
from covey.storage.sql.store import open_store
from covey.testing.federation import Federation, FederationError
from covey.testing.launch.forks import run_covey
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]
ROUNDS = 12
SLOW = {"task": "synthetic", "options": "train_seconds = 0.2"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("moving"), nodes=2) as made:
        yield made.start()


@pytest.fixture
def federation(shared, empty_postgres, postgres_database):
    """Before and after each test its record is in SQLite, whatever database it is in between."""
    yield shared
    if shared.store_url is not None:
        if shared.coordinator.alive:
            shared.stop_coordinator()
        go_on_with(shared, None)


@pytest.fixture(scope="module")
def undisturbed(shared):
    return shared.wait(shared.submit(spec("undisturbed", rounds=ROUNDS, **SLOW)))["model_sha256"]


def half_way(federation, name):
    federation.wait_connected(2)
    run = federation.submit(spec(name, rounds=ROUNDS, **SLOW))
    federation.wait_round(run, 2)
    return run


def go_on_with(federation, store_url):
    """Copy the record, put the old one away, start the coordinator on the new one."""
    own = sqlite_url(federation.coordinator_dir)
    copied = copy(federation, federation.store_url or own, store_url or own)
    for old in federation.coordinator_dir.glob("covey.db*") if store_url else ():
        old.unlink()
    federation.store_url = store_url
    federation.start_coordinator()
    return copied


def copy(federation, source, target):
    return json.loads(federation.cli("store", "copy", "--from", source, "--to", target, "--json"))["rows"]


def complete(federation, run, undisturbed):
    assert federation.wait(run, timeout_s=120)["model_sha256"] == undisturbed
    rounds = [(r["round"], r["state"], r["accepted"]) for r in federation.rounds(run)]
    assert rounds == [(number, "committed", 2) for number in range(1, ROUNDS + 1)]
    where = ("--data-dir", federation.coordinator_dir)
    assert json.loads(federation.cli("run", "audit", run, "--json", *where))["ok"]
    store = ("--store", federation.store_url) if federation.store_url else ()
    assert json.loads(federation.cli("store", "check", "--json", *where, *store))["problems"] == []


def test_a_run_goes_on_in_postgresql(federation, undisturbed, empty_postgres):
    run = half_way(federation, "moved")
    with pytest.raises(FederationError, match=r"another coordinator .* runs on this store: stop it first"):
        copy(federation, sqlite_url(federation.coordinator_dir), empty_postgres)
    federation.kill_coordinator()
    rows = go_on_with(federation, empty_postgres)
    assert rows["groups"] >= ROUNDS + 2
    assert federation.admin.status()["store"] == "PostgreSQL"
    complete(federation, run, undisturbed)
    federation.stop_coordinator()
    files = models(federation)
    assert files
    federation.store_url = None  # the operator forgot --store: a new, empty record names none of the files
    for _ in range(2):
        refused(federation, "is --store (COVEY_STORE) missing")
        assert not list(federation.coordinator_dir.glob("covey.db*"))
    assert models(federation) == files
    federation.store_url = empty_postgres
    federation.start_coordinator()
    complete(federation, run, undisturbed)


def test_another_federation_s_database_does_not_get_the_files(federation, undisturbed, tmp_path):
    federation.stop_coordinator()
    files = models(federation)
    other = f"sqlite:///{tmp_path}/other.db"
    for _ in range(9):  # more often than the coordinator here was started
        with closing(open_store(other)) as store:
            store.acquire_lease("another coordinator")
    for record in (None, "an id of its own"):
        if record:
            with closing(open_store(other)) as store:
                store.set_setting("record-id", record)
        federation.store_url = other
        refused(federation, "this database holds another record")
        assert models(federation) == files
    federation.store_url = None
    federation.start_coordinator()
    federation.wait_connected(2)


def models(federation):
    return sorted(path.name for path in (federation.coordinator_dir / "files" / "artifacts").iterdir())


def refused(federation, reason):
    with pytest.raises(FederationError, match="coordinator ended by itself with exit code 1"):
        federation.start_coordinator()
    assert reason in federation.coordinator.tail()
    federation.coordinator.may_die = True


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_a_backup_from_postgresql_goes_on_where_it_was_made(
    federation, undisturbed, target, empty_postgres, postgres_database, tmp_path
):
    federation.stop_coordinator()
    go_on_with(federation, empty_postgres)
    run = half_way(federation, f"backed-up-{target}")
    backup, where = tmp_path / "backup", ("--data-dir", federation.coordinator_dir)
    assert federation.admin.call("Backup", BackupRequest(folder=str(backup))).bytes > 0
    saved = json.loads(federation.cli("run", "show", run, "--json", "--data-dir", backup))["rounds_committed"]
    assert 2 <= saved < ROUNDS
    assert json.loads(federation.cli("store", "check", "--data-dir", backup, "--json"))["problems"] == []
    federation.wait_round(run, saved + 1)  # this round will be lost with the database
    federation.kill_coordinator()
    federation.coordinator_dir.rename(tmp_path / "lost")
    federation.store_url = None if target == "sqlite" else postgres_database
    store = ("--store", federation.store_url) if federation.store_url else ()
    federation.cli("coordinator", "restore", backup, *where, *store)
    assert (federation.coordinator_dir / "covey.db").exists() == (target == "sqlite")
    federation.start_coordinator()
    complete(federation, run, undisturbed)


def test_a_restore_into_a_database_in_use_leaves_nothing_behind(federation, undisturbed, postgres_database, tmp_path):
    backup, new = tmp_path / "backup", tmp_path / "new"
    federation.cli("coordinator", "backup", "--to", backup, "--data-dir", federation.coordinator_dir)
    into = ("coordinator", "restore", backup, "--store", postgres_database)
    federation.cli(*into, "--data-dir", new)
    with pytest.raises(FederationError, match=r"is not empty \(table events has rows\): name an empty database"):
        federation.cli(*into, "--data-dir", tmp_path / "second")
    assert list((tmp_path / "second").iterdir()) == []
    assert not list(new.glob("covey.db*"))


@pytest.mark.parametrize("point", ["file-copied:2", "restored-entry:2"])
def test_no_coordinator_starts_on_a_restore_that_was_killed(federation, undisturbed, tmp_path, point):
    backup = tmp_path / "backup"
    federation.cli("coordinator", "backup", "--to", backup, "--data-dir", federation.coordinator_dir)
    identity = federation.admin.status()["federation"]
    with Federation(tmp_path / "restored", nodes=0) as restored:
        restoring = ("coordinator", "restore", backup, "--data-dir", restored.coordinator_dir)
        assert run_covey(restoring, env={**os.environ, "COVEY_FAULTS": point}).returncode == -9
        before = files_of(restored)
        refused(restored, "was interrupted, or still goes on: give the same command again")
        assert files_of(restored) == before
        restored.cli(*restoring)
        restored.start_coordinator()
        assert restored.admin.status()["federation"] == identity
        assert models(restored) == models(federation)


def files_of(federation):
    """What is in the coordinator's directory, but for the lock of the daemon that was there last."""
    return sorted(path.name for path in federation.coordinator_dir.iterdir() if path.name != "daemon.lock")
