"""How often one address, and all together, may try."""

import pytest

from covey.coordinator.nodes.rate_limits import MAX_ADDRESSES, RateLimits
from covey.errors import LimitExceeded
from covey.wire.listeners.connections import site_of


class Clock:
    """Stands still unless told otherwise."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_tries_come_back_with_time():
    clock = Clock()
    limits = RateLimits(each=(2, 0.5), total=(100, 100.0), clock=clock)
    for _ in range(2):
        limits.admit("a")
    with pytest.raises(LimitExceeded):
        limits.admit("a")
    limits.admit("b")
    clock.now += 2
    limits.admit("a")
    with pytest.raises(LimitExceeded):
        limits.admit("a")
    clock.now += 1000
    for _ in range(2):
        limits.admit("a")
    with pytest.raises(LimitExceeded):
        limits.admit("a")


def test_all_together_are_bounded_too():
    clock = Clock()
    limits = RateLimits(each=(2, 1.0), total=(3, 1.0), clock=clock)
    for address in "abc":
        limits.admit(address)
    with pytest.raises(LimitExceeded):
        limits.admit("d")
    clock.now += 1
    limits.admit("d")


def test_a_good_try_is_given_back_but_no_more():
    limits = RateLimits(each=(1, 0.0), total=(1, 0.0), clock=Clock())
    for _ in range(5):
        limits.admit("a")
        limits.forgive("a")
    limits.forgive("a")
    limits.admit("a")
    with pytest.raises(LimitExceeded):
        limits.admit("a")


def test_many_addresses_take_no_endless_memory():
    limits = RateLimits(each=(1, 0.0), total=(10 * MAX_ADDRESSES, 0.0), clock=Clock())
    for number in range(2 * MAX_ADDRESSES):
        limits.admit(str(number))
    assert len(limits._buckets._buckets) == MAX_ADDRESSES
    with pytest.raises(LimitExceeded):
        limits.admit(str(2 * MAX_ADDRESSES - 1))


@pytest.mark.parametrize(
    ("peer", "site"),
    [
        ("ipv4:10.1.2.3:50000", "10.1.2.3"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:50000", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2::9]:50000", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:10.1.2.3%5D:50000", "10.1.2.3"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50000", "fe80::/64"),
        ("unix:/run/covey.sock", "unix:/run/covey.sock"),
        ("ipv4:what", "ipv4:what"),
    ],
)
def test_what_counts_as_one_address(peer, site):
    assert site_of(peer) == site
