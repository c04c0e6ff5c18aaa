"""The page's server over a record at rest, asked in process."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from covey.client.target import Target
from covey.ui.app import make_app
from covey.ui.guard import Secrets
from covey.ui.source import Source

PORT = 7480


@pytest.fixture
def source(recorder):
    source = Source(Target(Path(recorder.data_dir)))
    yield source
    source.close()


@pytest.fixture
def secrets():
    return Secrets()


@pytest.fixture
def stranger(source, secrets):
    """Somebody without a cookie."""
    address = f"http://127.0.0.1:{PORT}"
    client = TestClient(make_app(source, PORT, secrets), base_url=address, follow_redirects=False)
    yield client
    client.close()


@pytest.fixture
def client(stranger, secrets):
    """A browser that has opened the address with the token."""
    assert stranger.get("/", params={"token": secrets.token}).status_code == 200
    return stranger
