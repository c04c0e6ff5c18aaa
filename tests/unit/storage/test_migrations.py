from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, update

from covey.errors import Conflict, StoreError
from covey.storage.sql.database import Database
from covey.storage.sql.engine import database_url
from covey.storage.sql.migrations import migrate as migrations
from covey.storage.sql.migrations.migrate import require_current
from covey.storage.sql.schema import Base
from covey.storage.sql.store import migrate, open_store

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/a 50% new.db"
    return request.getfixturevalue("empty_postgres")


@pytest.fixture
def engine(empty_url):
    made = create_engine(database_url(empty_url))
    yield made
    made.dispose()


def test_the_constant_is_the_newest_revision():
    config = Config()
    config.set_main_option("script_location", str(migrations.MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [migrations.HEAD]


def test_migrations_make_what_the_models_say(empty_url, engine):
    migrate(empty_url)
    migrate(empty_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        assert migrations.revision(connection) == migrations.HEAD
        found = inspect(connection)
        for table in Base.metadata.sorted_tables:
            assert found.get_pk_constraint(table.name)["constrained_columns"] == [c.name for c in table.primary_key]


def test_threads_may_each_migrate_a_database_of_their_own(tmp_path):
    """As the simulations of a sweep do. Alembic has one upgrade at a time in a process."""
    urls = [f"sqlite:///{tmp_path}/{number}.db" for number in range(4)]
    with ThreadPoolExecutor(len(urls)) as threads:
        list(threads.map(migrate, urls))
    for url in urls:
        require_current(url)


def first_schema(connection):
    config = Config()
    config.set_main_option("script_location", str(migrations.MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "0001")


def test_a_committed_round_of_the_first_schema_names_its_version(empty_url, engine):
    with engine.begin() as connection:
        first_schema(connection)
        connection.exec_driver_sql(
            "INSERT INTO runs (run, name, mode, spec, seed, state, reason, submitted_at, roster, parts, layout)"
            " VALUES ('r', 'r', 'rounds', '{}', 1, 'running', '', 1.0, '[]', 2, '[]')"
        )
        for number, state in ((1, "committed"), (2, "collecting")):
            connection.exec_driver_sql(
                "INSERT INTO rounds (run, round, attempt, state, invited, base_version, started_at, attempt_at,"
                f" bytes_received, bytes_sent, reason) VALUES ('r', {number}, 1, '{state}', '[]', {number - 1},"
                " 1.0, 1.0, 0, 0, '')"
            )
    store = open_store(empty_url)
    assert [(one.version, one.arrival) for one in store.rounds("r")] == [(1, None), (None, None)]
    store.close()


def test_a_database_of_a_newer_version_is_left_alone(empty_url, engine):
    migrate(empty_url)
    with engine.begin() as connection:
        connection.execute(update(migrations._VERSION).values(version_num="9999"))
    with pytest.raises(StoreError, match=r"is at revision 9999, .* knows those up to .*: start the newer Covey"):
        open_store(empty_url)
    with engine.connect() as connection:
        assert migrations.revision(connection) == "9999"


def test_tables_do_not_change_under_a_living_coordinator(empty_url, engine):
    with engine.begin() as connection:
        first_schema(connection)
    older = Database(database_url(empty_url))
    older.acquire_lease("the older coordinator")
    try:
        with pytest.raises(Conflict, match="a coordinator of an older version runs on this database: stop it"):
            migrate(empty_url)
        with engine.connect() as connection:
            assert migrations.revision(connection) == "0001"
    finally:
        older.close()
    with closing(open_store(empty_url)) as store:
        assert store.acquire_lease("the newer one") == 2


def test_a_migration_that_fails_leaves_nothing_half_made(empty_url, engine):
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE lease (other INTEGER)")
    with pytest.raises(StoreError, match="lease"):
        migrate(empty_url)
    assert inspect(engine).get_table_names() == ["lease"]


def test_opening_an_up_to_date_database_needs_no_alembic(tmp_path):
    url = f"sqlite:///{tmp_path}/covey.db"
    migrate(url)
    program = (
        "import sys; from covey.storage.sql.store import open_store; open_store(sys.argv[1]).close();"
        "print([name for name in ('alembic', 'psycopg', 'torch', 'grpc') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, url], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
