"""Federations of real daemons."""

from __future__ import annotations

import pytest

from covey.testing.federation import Federation


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """Two nodes and a coordinator, shared by a module's tests; each leaves it as it found it."""
    with Federation(tmp_path_factory.mktemp("federation"), nodes=2) as made:
        yield made.start()
