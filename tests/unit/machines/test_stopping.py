"""The rules that end a run: each with its reason, and none before its time."""

from __future__ import annotations

import math

import pytest

from covey.machines.stopping import Stopping, StopRules


def measured(rules, *values):
    stopping = Stopping(rules)
    for version, value in enumerate(values, start=1):
        stopping.measured(version, value)
    return stopping.why(0)


@pytest.mark.parametrize(
    ("rules", "values", "why"),
    [
        (StopRules("accuracy", target=0.9), (0.5, 0.89), ""),
        (StopRules("accuracy", target=0.9), (0.5, 0.9, 0.1), "target = 0.9: version 2 has accuracy 0.9"),
        (StopRules("loss", "min", target=0.1), (0.5, 0.2), ""),
        (StopRules("loss", "min", target=0.1), (0.5, 0.05), "version 2 has loss 0.05"),
        (StopRules("accuracy", patience=2), (0.5, 0.4, 0.6, 0.6), ""),
        (StopRules("accuracy", patience=2), (0.5, 0.6, 0.6, 0.5), "since version 2, with accuracy 0.6, 2 evaluations"),
        (StopRules("accuracy", patience=2, min_delta=0.1), (0.5, 0.55, 0.59), "since version 1, with accuracy 0.5"),
        (StopRules("loss", "min", patience=1), (0.5, 0.4, 0.4), "since version 2, with loss 0.4"),
        (StopRules("loss", "min", patience=1, min_delta=0.05), (0.5, 0.4, 0.3), ""),
        (StopRules("accuracy", target=0.9, patience=1), (None, math.nan, math.inf, 0.5), ""),
    ],
)
def test_what_versions_are_worth(rules, values, why):
    said = measured(rules, *values)
    assert why in said
    assert bool(said) is bool(why)


def test_what_is_measured_after_the_end_changes_no_reason():
    stopping = Stopping(StopRules("accuracy", target=0.9), [(1, 0.95)])
    stopping.measured(2, 0.99)
    assert "version 1" in stopping.why(0)


def test_bytes_and_time():
    stopping = Stopping(StopRules(ends_at=100.0, time_s=60, sent_bytes=1000), sent_bytes=400)
    stopping.sent(500)
    assert (stopping.why(99.9), stopping.wake_times()) == ("", [100.0])
    assert stopping.why(100.0) == "[stop] time_s = 60: the run has had its time"
    stopping.sent(100)
    assert stopping.why(0) == "[stop] bytes = 1000: nodes have sent 1000 bytes of updates"
    assert Stopping(StopRules()).why(1e12) == ""
