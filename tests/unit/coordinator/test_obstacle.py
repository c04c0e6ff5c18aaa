"""What is in the coordinator's way: waited for, shown while it is there, said once in a while."""

from __future__ import annotations

import asyncio
import errno

import pytest
import structlog

from covey.coordinator import obstacle as room
from covey.coordinator.obstacle import CURRENT_S, SAY_EVERY_S, Obstacle
from covey.errors import DiskFull, Obstructed, StoreError, StoreUnavailable


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(room, "RETRY_S", 0.0)


async def test_work_is_tried_again_until_nothing_is_in_its_way_and_shown_meanwhile():
    obstacle, shown = Obstacle(), []
    errors = [
        DiskFull("no room for /a"),
        Obstructed("/a is read-only"),
        StoreUnavailable("away"),
        OSError(errno.ENOSPC, "No space left on device", "/b"),
        OSError(errno.EMFILE, "Too many open files", "/c"),
    ]

    async def work():
        shown.append(obstacle.text("r"))
        if errors:
            raise errors.pop(0)
        return "done"

    assert await obstacle.passed(work) == "done"
    assert [text[:14] for text in shown[1:4]] == ["no room for /a", "/a is read-onl", "away"]
    assert "no room for /b" in shown[4]
    assert "cannot open /c: too many files" in shown[5]


async def test_other_errors_come_out():
    for error in (StoreError("refused"), OSError(errno.EIO, "Input/output error"), ValueError("no")):

        async def work(error=error):
            raise error

        with pytest.raises(type(error)):
            await Obstacle().passed(work)


async def test_what_waits_is_shown_until_it_is_given_up_whatever_else_succeeds():
    obstacle = Obstacle()

    async def stuck():
        raise DiskFull("full")

    async def fine():
        return 1

    task = asyncio.create_task(obstacle.passed(stuck))
    async with asyncio.timeout(20):
        while not obstacle.text("r"):  # noqa: ASYNC110
            await asyncio.sleep(0)
    await obstacle.passed(fine)
    assert obstacle.text("r") == "full"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert obstacle._waiting == {}


def test_what_others_met_is_shown_for_a_while_and_said_once_in_a_while():
    now = [0.0]
    obstacle = Obstacle(lambda: now[0])
    with structlog.testing.capture_logs() as lines:
        for now[0] in (0.0, 1.0, SAY_EVERY_S - 1, SAY_EVERY_S + 1):
            obstacle.met(DiskFull("no room for /spool/1"), "r")
        obstacle.met(StoreUnavailable("gone"))
    assert [line["error"] for line in lines] == ["no room for /spool/1"] * 2 + ["gone"]
    assert obstacle.text("r") == "gone"
    now[0] += CURRENT_S
    assert obstacle.text("r") == ""
    obstacle.met(StoreUnavailable("gone"))
    obstacle.over("r")
    assert obstacle.text("r") == ""


def test_what_a_runs_update_met_is_shown_there_whatever_comes_through_in_others():
    now = [0.0]
    obstacle = Obstacle(lambda: now[0])
    obstacle.met(DiskFull("no room"), "one")
    obstacle.over("two")
    assert (obstacle.text("one"), obstacle.text("two")) == ("no room", "")
    obstacle.met(StoreUnavailable("away"))  # before it is known of which run the update is
    assert (obstacle.text("one"), obstacle.text("two")) == ("away", "away")
    obstacle.over("two")
    assert (obstacle.text("one"), obstacle.text("two")) == ("no room", "")
    obstacle.over("one")
    assert obstacle.text("one") == ""
    for run in map(str, range(1000)):
        obstacle.met(DiskFull("no room"), run)
        now[0] += 1.0
    assert len(obstacle._met) <= CURRENT_S
