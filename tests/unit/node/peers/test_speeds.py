import pytest

from covey.node.peers.speeds import LEAST_BYTES, Speeds


def test_the_rate_of_whole_transfers_follows_what_is_measured():
    speeds = Speeds()
    speeds.sent("bob", 10 * LEAST_BYTES, 1.0)
    assert speeds.known() == [("bob", 10 * LEAST_BYTES)]
    for _ in range(50):
        speeds.sent("bob", 10 * LEAST_BYTES, 2.0)
    assert speeds.known()[0][1] == pytest.approx(5 * LEAST_BYTES, rel=1e-3)


@pytest.mark.parametrize(("size_bytes", "seconds"), [(LEAST_BYTES - 1, 1.0), (LEAST_BYTES, 0.0)])
def test_what_says_nothing_of_the_rate_is_not_counted(size_bytes, seconds):
    speeds = Speeds()
    speeds.sent("bob", size_bytes, seconds)
    assert speeds.known() == []
