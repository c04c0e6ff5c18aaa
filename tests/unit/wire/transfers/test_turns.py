"""Slots of transfers go round: who is slow gives way, and nobody keeps a slot for ever while others wait."""

from __future__ import annotations

import pytest

from covey.wire.transfers.grants import LEAST_BYTES_S, TRIAL_S, TURN_S, Grants

FAST, SLOW = 4 * LEAST_BYTES_S, LEAST_BYTES_S // 3


class Transfers:
    """Files of some size that pass at some rate, one second after the other, looked at as the coordinator does."""

    def __init__(self, slots=2):
        self.grants, self.now = Grants[str](slots), 0.0
        self.rate, self.left = {}, {}
        self.ended = {}

    def ask(self, name, size_bytes, rate):
        self.rate[name] = rate
        self.left[name] = size_bytes
        self.grants.request(name, name, now=self.now)

    def second(self):
        self.now += 1
        for name in [name for name in self.left if self.grants.holds(name)]:
            self.grants.moved(name, self.rate[name], self.now)
            self.left[name] -= self.rate[name]
            if self.left[name] <= 0:
                del self.left[name]
                self.ended[name] = self.now
                self.grants.succeeded(name)
                self.grants.release(name)
            elif self.now % 2 == 0 and self.grants.overdue(name, self.now):
                self.grants.take_back(name)
                self.grants.request(name, name, now=self.now)

    def until(self, name, most_s):
        while name not in self.ended:
            assert self.now < most_s, f"{name} has not ended after {most_s} s"
            self.second()


def test_two_that_trickle_keep_nobody_out():
    transfers = Transfers()
    for name in ("mallory", "trudy"):
        transfers.ask(name, 1 << 40, SLOW)
    for name in ("ada", "bob", "cyd"):
        transfers.ask(name, 10 * FAST, FAST)
    for name in ("ada", "bob", "cyd"):
        transfers.until(name, 3 * TRIAL_S + 10)
    assert transfers.grants.holds("mallory")
    assert transfers.grants.holds("trudy")
    # They were slow: whoever comes next waits for one look only.
    began = transfers.now
    transfers.ask("eve", 10 * FAST, FAST)
    transfers.until("eve", began + TRIAL_S + 14)


def test_who_does_nothing_with_its_slot_is_slow_too():
    transfers = Transfers(slots=1)
    transfers.ask("mallory", 1 << 40, 0)
    transfers.ask("ada", FAST, FAST)
    transfers.until("ada", TRIAL_S + 4)


def test_alone_even_the_slowest_goes_on():
    transfers = Transfers()
    transfers.ask("ada", 100 * SLOW, SLOW)
    transfers.ask("bob", 100 * SLOW, SLOW)
    transfers.until("bob", 100)
    assert transfers.ended == {"ada": 100, "bob": 100}


def test_just_above_the_least_rate_a_slot_is_kept_for_a_turn_at_most():
    transfers = Transfers(slots=1)
    transfers.ask("mallory", 1 << 40, LEAST_BYTES_S)
    transfers.ask("ada", 10 * FAST, FAST)
    transfers.until("ada", TURN_S + 14)
    assert transfers.ended["ada"] > TURN_S


@pytest.mark.parametrize("slots", [1, 2])
def test_where_all_are_slow_each_has_its_turn(slots):
    transfers = Transfers(slots)
    names = [f"n{number}" for number in range(6)]
    for name in names:
        transfers.ask(name, 90 * SLOW, SLOW)
    for name in names:
        transfers.until(name, 90 * len(names) / slots + 3 * TRIAL_S)


def test_who_has_ended_a_transfer_is_not_slow_any_more():
    grants = Grants[str](1)
    grants.request("mallory", "mallory")
    grants.request("ada", "ada")
    assert grants.overdue("mallory", TRIAL_S)
    assert not grants.overdue("ada", TRIAL_S)
    assert grants.take_back("mallory") == ["ada"]
    assert not grants.request("mallory", "mallory", now=TRIAL_S)
    assert not grants.request("bob", "bob", now=TRIAL_S)
    assert grants.release("ada") == ["bob"]
    assert grants.release("bob") == ["mallory"]
    grants.succeeded("mallory")
    assert grants.release("mallory") == []
    assert grants.request("cyd", "cyd", now=TRIAL_S)
    assert not grants.request("mallory", "mallory", now=TRIAL_S)
    assert not grants.request("bob", "bob", now=TRIAL_S)
    assert grants.release("cyd") == ["mallory"]
