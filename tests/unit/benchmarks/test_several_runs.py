"""The measurement of several runs at once: when it says that each came to its own model."""

from __future__ import annotations

import pytest

from benchmarks.measuring.several_runs import Both


@pytest.mark.parametrize(
    ("at_once", "most", "is_same"),
    [(("a", "b"), 2, True), (("a", "c"), 2, False), (("b", "a"), 2, False), (("a", "b"), 1, False)],
)
def test_other_models_or_runs_in_turn_are_no_success(at_once, most, is_same):
    assert Both(2.0, 1.0, ("a", "b"), at_once, most).is_same is is_same
