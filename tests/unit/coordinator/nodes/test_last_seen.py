"""When connected nodes were heard last: in the clock of the record, and on record while they are connected."""

from __future__ import annotations

import asyncio
import time

import pytest

from covey.coordinator.nodes import last_seen
from covey.coordinator.nodes.last_seen import heard_at, keep_seen
from covey.coordinator.nodes.sessions import Session, Sessions
from covey.coordinator.store_thread import StoreThread
from covey.errors import StoreUnavailable


@pytest.fixture
def often(monkeypatch):
    """It is put on record at once, again and again."""
    monkeypatch.setattr(last_seen, "EVERY_S", 0.0)


@pytest.fixture
def sessions():
    """Of `ada`, who was heard ten seconds ago; the record knows `bob` too, who has no session."""
    sessions = Sessions()
    sessions.open("ada").heard_at = time.monotonic() - 10
    return sessions


def seen(world):
    return {node.node: node.last_seen_at for node in world.record.nodes()}


async def recorded(store, sessions, clock, is_enough):
    """Keep what is seen on record until it is enough."""
    task = asyncio.create_task(keep_seen(store, sessions, clock))
    while not is_enough():
        assert not task.done(), task
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


@pytest.mark.parametrize("silent_s", [0.0, 12.5, 4000.0])
def test_how_long_a_node_is_silent_counts_from_now(silent_s):
    session = Session("ada", heard_at=time.monotonic() - silent_s)
    at = heard_at(session, 5000.0)
    assert 4990.0 - silent_s < at <= 5000.0 - silent_s


async def test_nodes_with_a_session_are_seen_and_no_others(world, often, sessions):
    sessions.open("a stranger")
    await recorded(world.store, sessions, lambda: 1000.0, lambda: seen(world)["ada"] is not None)
    at = seen(world)
    assert at["ada"] == pytest.approx(990.0, abs=9.0)
    assert at["bob"] is None
    assert set(at) == {"ada", "bob"}


async def test_it_is_noted_again_with_the_time_that_it_is_then(world, often, sessions):
    now = iter(range(1000, 10**9, 1000))
    await recorded(world.store, sessions, lambda: float(next(now)), lambda: (seen(world)["ada"] or 0) > 2500)


async def test_without_sessions_nothing_is_noted(world, often):
    empty = CountedSessions()
    await recorded(world.store, empty, lambda: 1000.0, lambda: empty.asked >= 5)
    assert seen(world) == {"ada": None, "bob": None}


class CountedSessions(Sessions):
    """Counts how often it was asked."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def live(self):
        self.asked += 1
        return super().live()


class Unreachable(StoreThread):
    """A record that is away for the first calls."""

    def __init__(self, store, failures):
        super().__init__(store)
        self.failures = failures

    async def call(self, method, *args, **kwargs):
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("the database is away")
        return await super().call(method, *args, **kwargs)


async def test_while_the_record_is_away_it_stays_and_is_noted_once_it_is_back(world, often, sessions):
    store = Unreachable(world.record, failures=3)
    await recorded(store, sessions, lambda: 1000.0, lambda: seen(world)["ada"] is not None)
    assert store.failures == 0
