"""A clock that begins at the Unix time and does not follow the computer's clock when that is set."""

from __future__ import annotations

import asyncio
import contextlib
import time

import structlog

from covey.driver import steady_clock as room
from covey.driver.steady_clock import say_jumps, steady_clock


def test_it_begins_now_and_does_not_follow_a_clock_that_is_set(monkeypatch):
    before, clock, after = time.time(), steady_clock(), time.time()
    assert before <= clock() <= after + 60
    monkeypatch.setattr(time, "time", lambda: after + 86_400)
    assert clock() < after + 3600


async def test_a_clock_that_is_set_is_said(monkeypatch):
    offsets = iter([100.0, 100.5, 3700.5, 3700.5, 0.0])

    def next_offset():
        return next(offsets)  # StopIteration ends the watch

    monkeypatch.setattr(room, "_offset_s", next_offset)
    monkeypatch.setattr(room, "LOOK_S", 0.0)
    with structlog.testing.capture_logs() as lines, contextlib.suppress(RuntimeError):
        await asyncio.wait_for(say_jumps(), 20)
    assert [(line["event"].split(";")[0], line["seconds"]) for line in lines] == [
        ("this machine's clock was set forward", 3600.0),
        ("this machine's clock was set back", 3700.5),
    ]
