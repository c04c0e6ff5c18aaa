"""The record in PostgreSQL: a federation on a real server, which goes away and comes back in the middle of a run."""

from __future__ import annotations

import pytest

from covey.testing.federation import TERMINAL, Federation
from tests.databases import execute
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]
AWAY = "the database is away; trying again"
SLOW = {"task": "synthetic", "options": "train_seconds = 0.3"}


@pytest.fixture(scope="module")
def federation(tmp_path_factory, postgres_url):
    with Federation(tmp_path_factory.mktemp("postgresql"), nodes=2, store_url=postgres_url) as made:
        yield made.start()


def test_a_run_on_postgresql_survives_a_crash_of_the_coordinator(federation):
    undisturbed = federation.wait(federation.submit(spec("first", rounds=4)))["model_sha256"]
    federation.stop_coordinator()
    federation.start_coordinator(env={"COVEY_FAULTS": "before-commit:2"})
    federation.wait_connected(2)
    run = federation.submit(spec("second", rounds=4))
    assert federation.coordinator.wait(60) == -9
    federation.start_coordinator()
    assert federation.wait(run)["model_sha256"] == undisturbed
    assert [r["state"] for r in federation.rounds(run)] == ["committed"] * 4
    assert not (federation.coordinator_dir / "covey.db").exists()


def test_a_run_waits_for_the_database_and_goes_on_by_itself(federation, postgres_server):
    undisturbed = federation.wait(federation.submit(spec("with-database", rounds=6, **SLOW)))["model_sha256"]
    run = federation.submit(spec("without-database", rounds=6, **SLOW))
    federation.wait_round(run, 2)
    postgres_server.stop()
    try:
        with pytest.raises(ConnectionError, match="UNAVAILABLE: the coordinator's database is away"):
            federation.admin.run(run)
        with pytest.raises(ConnectionError, match="database is away"):
            federation.admin.submit(spec("too-early", **SLOW))
        federation.until(lambda: waits(federation.coordinator), 30, "the coordinator did not notice")
        assert federation.admin.status()["nodes_connected"] == 2
    finally:
        postgres_server.ensure_postgres_running()
    assert federation.wait(run)["model_sha256"] == undisturbed
    assert [(r["state"], r["accepted"]) for r in federation.rounds(run)] == [("committed", 2)] * 6
    assert federation.coordinator.alive
    assert "too-early" not in {one["name"] for one in federation.admin.runs()}


MOMENTS = ("aggregate:2", "before-commit:3", "after-commit:4")
"""The coordinator is about to have an answer's aggregate made; to put a version on record; has just done so."""


def test_a_database_that_is_stopped_while_the_coordinator_aggregates_or_commits(federation, postgres_server):
    """The coordinator is suspended at each moment, the server is stopped, and only then the coordinator goes on."""
    text = spec("stopped-at", rounds=6, task="synthetic")
    undisturbed = federation.wait(federation.submit(text))["model_sha256"]
    federation.restart_coordinator(env={"COVEY_FAULTS": ",".join(f"{moment}:suspend" for moment in MOMENTS)})
    federation.wait_connected(2)
    run = federation.submit(text)
    for point in (moment.partition(":")[0] for moment in MOMENTS):
        federation.until(lambda at=point: f"fault point {at}: " in federation.coordinator.printed, 60, f"no {point}")
        postgres_server.stop()
        try:
            federation.coordinator.resume()
            with pytest.raises(ConnectionError, match="database is away"):
                federation.admin.run(run)
            federation.until(lambda: waits(federation.coordinator), 30, "the coordinator did not notice")
        finally:
            postgres_server.ensure_postgres_running()
    ended = federation.wait(run)
    assert (ended["model_sha256"], ended["reason"]) == (undisturbed, "")
    assert [(r["state"], r["attempt"], r["accepted"]) for r in federation.rounds(run)] == [("committed", 1, 2)] * 6
    federation.restart_coordinator()
    federation.wait_connected(2)


END_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid()"
)


def test_connections_that_the_server_ends_again_and_again_change_nothing(federation, postgres_url):
    """Whenever a round is opened, and in between: while updates are recorded, rounds closed and versions committed."""
    many = spec("cut-off", rounds=12, task="synthetic", options="train_seconds = 0.05")
    undisturbed = federation.wait(federation.submit(many))["model_sha256"]
    run, seen = federation.submit(many), []
    while (now := federation.show(run))["state"] not in TERMINAL:
        if now["rounds_committed"] not in seen[-2:]:  # twice in a round
            execute(postgres_url, END_OTHERS)
        seen.append(now["rounds_committed"])
    assert len(set(seen)) > 3
    ended = federation.wait(run)
    assert (ended["model_sha256"], ended["reason"]) == (undisturbed, "")
    assert [(r["state"], r["attempt"], r["accepted"]) for r in federation.rounds(run)] == [("committed", 1, 2)] * 12


def waits(coordinator):
    """Whether it was seen to wait: with a decision of its own, or with an update that a node offers again."""
    text = coordinator.printed
    return AWAY in text or "offer not taken now" in text
