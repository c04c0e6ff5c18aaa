"""The failure detector in virtual time."""

import math
import random

import pytest

from covey.node.peers.detector import LONGEST_BEATS, PhiAccrual


def suspected_after_s(detector, since, step_s=0.05):
    """How long a peer has to be silent until it is suspected."""
    return next(count * step_s for count in range(10_000) if detector.is_suspicious(since + count * step_s))


def heard(intervals, beat_s=1.0):
    detector, now = PhiAccrual(beat_s), 0.0
    detector.heard(now)
    for interval in intervals:
        now += interval
        detector.heard(now)
    return detector, now


def test_nobody_is_suspected_who_was_never_heard():
    assert not PhiAccrual(1.0).is_suspicious(1e9)


def test_a_regular_peer_is_suspected_soon_after_the_pause_that_is_borne():
    detector, now = heard([1.0] * 100)
    assert 4.0 < suspected_after_s(detector, now) < 6.0


def test_an_irregular_peer_is_borne_for_longer():
    rng = random.Random(1)
    steady, steady_end = heard([1.0] * 100)
    unsteady, end = heard([rng.uniform(0.2, 4.0) for _ in range(100)])
    assert suspected_after_s(unsteady, end) > 2 * suspected_after_s(steady, steady_end)


def test_it_follows_a_peer_that_becomes_slower_or_quicker():
    slow, slow_end = heard([1.0] * 100 + [3.0] * 100)
    quick, quick_end = heard([3.0] * 100 + [1.0] * 100)
    assert suspected_after_s(slow, slow_end) > 6.0
    assert suspected_after_s(quick, quick_end) < 6.0


def test_phi_is_the_chance_of_such_a_silence():
    detector, now = heard([1.0] * 100)
    # The pause of three beats and the mean are over by four least deviations (0.25 s each): 1 - Phi(4).
    assert detector.phi(now + 4.0 + 4 * 0.25) == pytest.approx(-math.log10(3.167124e-5), rel=1e-5)
    values = [detector.phi(now + silence / 4) for silence in range(100)]
    assert values == sorted(values)
    assert math.isinf(values[-1])


def test_a_longer_pause_is_borne_where_that_is_asked_for():
    detector = PhiAccrual(1.0, pause_s=60)
    detector.heard(0.0)
    assert 61 < suspected_after_s(detector, 0.0) < 64


def test_one_outage_does_not_blind_it():
    detector, now = heard([*[1.0] * 100, 3600.0, *[1.0] * 10])
    assert suspected_after_s(detector, now) < 3 * LONGEST_BEATS


@pytest.mark.parametrize("beat_s", [0.1, 1.0, 10.0])
def test_it_scales_with_the_beat(beat_s):
    detector, now = heard([beat_s] * 100, beat_s)
    assert suspected_after_s(detector, now, beat_s / 20) == pytest.approx(5.45 * beat_s, abs=0.2 * beat_s)
