"""Values as JSON, how specifications differ, how numbers lie among others."""

from __future__ import annotations

import json
import math
from typing import Any

from covey.client.values import Round, Run
from covey.ui.shapes import differences, plain, run_json, spreads


def test_values_are_json_without_what_json_does_not_know():
    shown = plain(Round(1, "committed", metrics={"loss": math.nan, "curve": [1.0, math.inf]}, invited=("a", "b")))
    assert (shown["metrics"], shown["invited"]) == ({"loss": None, "curve": [1.0, None]}, ["a", "b"])
    json.dumps(shown, allow_nan=False)
    assert plain(b"\x01") == "01"


def test_a_run_in_a_list_has_no_specification():
    run = Run("id", "name", "async", "running", updates=10, updates_decided=4, spec={"a": 1}, roster=("x",))
    assert {"spec", "roster"} & run_json(run).keys() == set()
    assert run_json(run, whole=True)["spec"] == {"a": 1}
    assert [run_json(run)[name] for name in ("unit", "done", "whole", "ended")] == ["updates", 4, 10, False]


def test_specifications_differ_in_keys_with_dots():
    ours = {"name": "a", "task": {"options": {"hidden": [1, 2]}}, "rounds": {"count": 3}, "privacy": {}}
    theirs = {"name": "a", "task": {"options": {"hidden": [1, 3]}}, "rounds": {"count": 3, "min_nodes": 2}}
    assert differences(ours, theirs) == [
        {"key": "privacy", "first": {}, "second": None, "in": [True, False]},
        {"key": "rounds.min_nodes", "first": None, "second": 2, "in": [False, True]},
        {"key": "task.options.hidden", "first": [1, 2], "second": [1, 3], "in": [True, True]},
    ]
    assert differences(ours, ours) == []


def test_numbers_lie_among_the_others():
    several: dict[str, Any] = {"distance": 2.0, "rank": 7}
    rows: list[dict[str, Any]] = [{"distance": 3.0, "text": "x"}, {"distance": 1}, several, {"distance": math.nan}]
    assert spreads(rows) == {
        "distance": {"least": 1.0, "median": 2.0, "most": 3.0, "of": 3},
        "rank": {"least": 7.0, "median": 7.0, "most": 7.0, "of": 1},
    }
    assert spreads([{"x": 1.0}, {"x": 4.0}])["x"]["median"] == 2.5
    assert spreads([]) == {}
