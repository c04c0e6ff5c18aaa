"""Metrics and the reasons why they are missing."""

from __future__ import annotations

import math
from typing import Any

import pytest

from covey.learning.statistics import Stat, merge
from covey.metrics import MAX_REASON, bounded, counted, failed, merged, missing, ratios, why
from covey.wire.identities.signing import UpdateStatement


def test_reasons_are_one_printable_line_of_bounded_length() -> None:
    assert why("a\n\tb\x1b[31m") == "a b [31m"
    assert why("") == "no reason is known"
    assert len(why("x" * 10_000)) == MAX_REASON


def test_ratios_have_a_number_or_a_reason() -> None:
    found = ratios({"a": (1.0, 4.0), "b": "no file", "c": (0.0, 0.0), "d": (math.nan, 1.0)})
    assert found == {"a": 0.25, "b": "no file", "c": "nothing was counted", "d": "its value is nan"}


def test_nodes_that_lack_a_metric_leave_it_to_the_others() -> None:
    parts: list[tuple[str, dict[str, Any]]] = [
        ("ada", {"m/auc": "one class", "m/f1": "no"}),
        ("bob", {"m/auc": [1.0, 4.0], "m/f1": "no"}),
    ]
    assert merged(parts, "m/") == {"auc": 0.25, "f1": "ada: no (and 1 more)"}


def test_a_statistic_that_is_missing_in_one_batch_is_missing_over_all() -> None:
    over_all = merge({"auc": Stat(1.0, 2.0)}, {"auc": Stat.missing("one class")})["auc"]
    assert over_all.why_missing == "one class"
    assert Stat(1.0, 2.0).why_missing == ""


@pytest.mark.parametrize("reason", ["one class only", "x" * MAX_REASON])
def test_a_missing_metric_is_signed_with_its_reason(reason: str) -> None:
    statement = UpdateStatement("f", "r", 1, "n", "k", "b", (), 1.0, {"loss": (1.0, 2.0), "auc": reason})
    assert UpdateStatement.from_bytes(statement.to_bytes()) == statement
    assert missing(statement.metrics) == {"auc": reason}
    assert counted(statement.metrics) == {"loss": (1.0, 2.0)}


def test_very_many_metrics_and_odd_names_cost_no_update() -> None:
    many = bounded({f"class\n{number}" + "x" * 300: (1.0, 2.0) for number in range(500)})
    statement = UpdateStatement("f", "r", 1, "n", "k", "b", (), 1.0, {f"evaluation/{n}": v for n, v in many.items()})
    assert UpdateStatement.from_bytes(statement.to_bytes()) == statement
    assert missing(many) == {"others": "420 metrics more than the 80 that are recorded"}
    assert bounded({"loss": (1.0, 2.0), "auc": "no"}) == {"loss": (1.0, 2.0), "auc": "no"}


def test_a_curve_is_recorded_whole_or_not_at_all() -> None:
    curve = {f"auroc/bin-{number}": (1.0, 2.0) for number in range(50)}
    second, named = ({f"{name}/bin-{number}": (1.0, 2.0) for number in range(40)} for name in ("pr", "x" * 95))
    kept = bounded({"a": (1.0, 2.0), **curve, **second, **named, "b": (1.0, 2.0)})
    assert list(counted(kept)) == ["a", *curve, "b"]
    assert {"pr", "x" * 95} == missing(kept).keys()
    assert missing(ratios(kept))["pr"] == "its 40 bins do not fit: 80 metrics with names of 100 characters do"


def test_a_failed_evaluation_is_one_missing_metric() -> None:
    assert failed("boom") == {"evaluation": "boom"}
