"""Following a run over connections that break."""

from __future__ import annotations

import pytest

from covey.client import watch
from covey.client.errors import Unreachable
from covey.client.values import Change, Run


def change(state, committed=0):
    return Change(Run("run", "digits", "rounds", state, rounds_committed=committed))


class Attempts:
    """Connections: each gives some changes, and then breaks if it is told to."""

    def __init__(self, *attempts):
        self.attempts = list(attempts)

    def __call__(self):
        changes, breaks = self.attempts.pop(0)
        yield from changes
        if breaks:
            raise Unreachable("gone")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(watch, "RETRY_S", 0.0)


def states(attempts, on_lost=None):
    return [(item.run.state, item.run.rounds_committed) for item in watch.follow(attempts, on_lost)]


def test_a_broken_connection_is_made_again():
    lost = []
    attempts = Attempts(
        ([change("queued")], True), ([], True), ([change("running", 1)], False), ([change("completed", 2)], True)
    )
    assert states(attempts, lost.append) == [("queued", 0), ("running", 1), ("completed", 2)]
    assert [str(error) for error in lost] == ["gone", "gone"]
    assert attempts.attempts == []


def test_what_never_answered_fails_at_once():
    with pytest.raises(Unreachable, match="gone"):
        states(Attempts(([], True)))


def test_a_coordinator_that_stays_away_is_given_up(monkeypatch):
    monkeypatch.setattr(watch, "AWAY_S", -1.0)
    with pytest.raises(Unreachable, match="gone"):
        states(Attempts(([change("running")], True)))


def test_an_error_of_the_one_who_is_told_ends_it():
    def complain(error):
        raise KeyError("a daemon has died")

    with pytest.raises(KeyError, match="died"):
        states(Attempts(([change("running")], True)), complain)
