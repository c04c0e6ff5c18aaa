"""The conformance suite of the store: every promise of `covey.storage.record.contract` as a test of a back end.

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def opened(self, tmp_path):
            return lambda: open_my_store(tmp_path)

It needs pytest and hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from covey.storage.record.contract import Store
from covey.testing.store.asynchronous import AsyncConformance
from covey.testing.store.gossip import GossipConformance
from covey.testing.store.identities import IdentityConformance
from covey.testing.store.life import LifeConformance
from covey.testing.store.phases import PhasesConformance
from covey.testing.store.reading import ReadingConformance
from covey.testing.store.retention import RetentionConformance
from covey.testing.store.rounds import RoundConformance
from covey.testing.store.runs import RunConformance


class StoreConformance(
    RunConformance,
    RoundConformance,
    PhasesConformance,
    AsyncConformance,
    RetentionConformance,
    IdentityConformance,
    ReadingConformance,
    LifeConformance,
    GossipConformance,
):
    """Inherit from it, and give it the fixture `opened`."""

    @pytest.fixture
    def opened(self) -> Callable[[], Store]:
        """A function that opens the store of this test (another time)."""
        raise NotImplementedError("give this suite a fixture `opened`")

    @pytest.fixture
    def store(self, opened: Callable[[], Store]) -> Iterator[Store]:
        """An empty store."""
        store = opened()
        yield store
        store.close()
