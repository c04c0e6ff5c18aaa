"""What an operator meets on upgrade: a database of the first schema with a run half-way, and one of a newer Covey."""

from __future__ import annotations

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, update

from covey.coordinator.config import sqlite_url
from covey.storage.sql.engine import database_url
from covey.storage.sql.migrations import migrate as migrations
from covey.testing.federation import Federation, FederationError
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]
ROUNDS = 6
SLOW = {"task": "synthetic", "options": "train_seconds = 0.2"}


@pytest.fixture(params=["sqlite", "postgresql"])
def federation(request, tmp_path):
    url = request.getfixturevalue("empty_postgres") if request.param == "postgresql" else None
    with Federation(tmp_path, nodes=2, store_url=url) as made:
        yield made.start()


def at(federation, change):
    """Change the database of a coordinator that is stopped, without the checks of a store's own connections."""
    engine = create_engine(database_url(federation.store_url or sqlite_url(federation.coordinator_dir)))
    try:
        with engine.begin() as connection:
            return change(connection)
    finally:
        engine.dispose()


def downgrade(connection):
    config = Config()
    config.set_main_option("script_location", str(migrations.MIGRATIONS))
    config.attributes["connection"] = connection
    command.downgrade(config, "0001")


def pretend(revision):
    return lambda connection: connection.execute(update(migrations._VERSION).values(version_num=revision))


def test_a_run_goes_on_after_an_upgrade_and_not_after_a_downgrade(federation):
    undisturbed = federation.wait(federation.submit(spec("undisturbed", rounds=ROUNDS, **SLOW)))["model_sha256"]
    run = federation.submit(spec("upgraded", rounds=ROUNDS, **SLOW))
    federation.wait_round(run, 2)
    federation.kill_coordinator()
    at(federation, downgrade)
    assert at(federation, migrations.revision) == "0001"
    federation.start_coordinator()
    assert federation.wait(run)["model_sha256"] == undisturbed
    assert [(r["state"], r["accepted"]) for r in federation.rounds(run)] == [("committed", 2)] * ROUNDS
    federation.stop_coordinator()
    assert at(federation, migrations.revision) == migrations.HEAD
    at(federation, pretend("9999"))
    with pytest.raises(FederationError, match="coordinator ended by itself with exit code 1"):
        federation.start_coordinator()
    assert federation.coordinator.wait(30) == 1
    federation.coordinator.may_die = True
    said = federation.coordinator.tail(1)
    assert "the database is at revision 9999" in said
    assert "start the newer Covey that made it, or restore a backup that was made before the upgrade" in said
