"""What a machine cannot do just now is said once, and tried again until it can."""

from __future__ import annotations

import errno

import pytest
from structlog.testing import capture_logs

from covey.errors import DiskFull, StoreError
from covey.node.gossip.obstacles import Obstacles


async def test_it_is_tried_again_until_it_can_be_done() -> None:
    obstacles = Obstacles(retry_s=0.0)
    problems: list[Exception] = [DiskFull("no room"), DiskFull("no room"), OSError(errno.EROFS, "read-only", "/x")]
    stood: list[str] = []

    async def work() -> str:
        stood.append(obstacles.reason)
        if problems:
            raise problems.pop(0)
        return "done"

    with capture_logs() as logged:
        assert await obstacles.passed("train", work) == "done"
    assert stood[:3] == ["", "no room", "no room"]
    assert "/x: its disk is mounted read-only" in stood[3]
    assert [line["log_level"] for line in logged] == ["warning", "warning", "info"]
    assert (obstacles.reason, obstacles.stands("train")) == ("", False)


@pytest.mark.parametrize("error", [StoreError("it is damaged"), OSError(errno.EIO, "broken", "/x")])
async def test_what_trying_again_does_not_help_is_an_error(error: Exception) -> None:
    async def work() -> None:
        raise error

    with pytest.raises(type(error)):
        await Obstacles().passed("train", work)


def test_what_stands_is_said_once_whatever_it_is_in_the_way_of() -> None:
    obstacles = Obstacles()
    for what in ("record", "train"):
        obstacles.met(what, DiskFull("no room"))
    assert obstacles.reason == "no room"
    obstacles.gone("train")
    assert (obstacles.stands("record"), obstacles.stands("train"), obstacles.reason) == (True, False, "no room")
