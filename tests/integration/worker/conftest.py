"""One worker process for the tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from covey.testing.launch.forks import forked_workers
from covey.worker.client.client import Worker

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def tasks_path() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT / "tests" / "unit" / "worker"))
        yield


@pytest.fixture
def forking() -> Iterator[None]:
    """Workers that a test starts are forked."""
    with forked_workers():
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(tasks_path: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worker]:
    with forked_workers():
        found = await Worker.start(tmp_path_factory.mktemp("worker"))
    yield found
    await found.stop()
    assert not psutil.pid_exists(found.pid)
