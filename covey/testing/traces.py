"""Checks of trace-event files: what Perfetto and Chrome need, so that nothing in them is dropped or drawn wrongly."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

Event = Mapping[str, Any]
Place = tuple[int, int]
"""Process and row."""


def check_trace(content: Mapping[str, Any]) -> list[Event]:
    """The slices of a trace-event file.

    Raises:
        AssertionError: It is not valid: an event lacks what its kind needs, a row has no name, slices of a row overlap
            in part, or an arrow does not go from a slice to a slice.
    """
    json.dumps(content, allow_nan=False)
    events: list[Event] = content["traceEvents"]
    heads = [event for event in events if event["ph"] == "M"]
    named = {(event["pid"], event["tid"]) for event in heads if event["name"] == "thread_name"}
    processes = {event["pid"] for event in heads if event["name"] == "process_name"}
    times = [event["ts"] for event in events if event["ph"] != "M"]
    _hold(times == sorted(times) and min(times, default=0) == 0, "events are not in order from time 0")
    rows: dict[Place, list[Event]] = defaultdict(list)
    for event in events:
        _hold(event["ph"] in "MXiCsf" and event["name"] and event["pid"] in processes, f"wrong: {event}")
        if event["ph"] in "Xisf":
            _hold((event["pid"], event["tid"]) in named, f"on a row without a name: {event}")
        if event["ph"] == "X":
            _hold(isinstance(event["dur"], int) and event["dur"] > 0, f"without a length: {event}")
            rows[event["pid"], event["tid"]].append(event)
    for slices in rows.values():
        for before, after in pairwise(slices):
            _hold(before["ts"] + before["dur"] <= after["ts"], f"overlap: {before} and {after}")
    _check_arrows(events, rows)
    return [event for event in events if event["ph"] == "X"]


def _check_arrows(events: list[Event], rows: Mapping[Place, list[Event]]) -> None:
    ends: dict[int, list[str]] = defaultdict(list)
    for event in events:
        if event["ph"] in "sf":
            ends[event["id"]].append(event["ph"])
            around = rows[event["pid"], event["tid"]]
            is_on_one = any(piece["ts"] <= event["ts"] <= piece["ts"] + piece["dur"] for piece in around)
            _hold(is_on_one, f"an arrow's end on no slice: {event}")
    _hold(all(sorted(kinds) == ["f", "s"] for kinds in ends.values()), "an arrow without one of its ends")


def _hold(holds: object, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
