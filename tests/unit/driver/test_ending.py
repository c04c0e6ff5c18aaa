"""Tasks that are told to end: those that do, those that take it for something else, and those that never do."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import structlog

from covey.driver.ending import ATTEMPTS, end, heed, place


async def forever() -> None:
    await asyncio.Event().wait()


async def deaf(times: int, heard: list[int]) -> None:
    """Takes so many cancellations for something else."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            heard.append(len(heard))
            if len(heard) > times:
                raise


async def failing() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        raise ValueError("at the end")


async def begun(*work: object) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(each) for each in work]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    return tasks


async def test_what_ends_is_ended_whatever_it_ends_with() -> None:
    tasks = await begun(forever(), failing(), asyncio.sleep(0))
    with structlog.testing.capture_logs() as said:
        await end(tasks)
        await end(tasks)
        await end([])
    assert all(task.done() for task in tasks)
    assert said == []


@pytest.mark.parametrize("times", [1, ATTEMPTS - 1])
async def test_who_took_it_for_something_else_is_told_again_and_named(times: int) -> None:
    heard: list[int] = []
    tasks = await begun(deaf(times, heard), forever())
    with structlog.testing.capture_logs() as said:
        await end(tasks, patience_s=0.05)
    assert all(task.cancelled() for task in tasks)
    assert len(said) == times
    assert said[0]["work"][0].startswith(f"deaf at {__file__}:")


async def test_nobody_waits_for_ever() -> None:
    heard: list[int] = []
    (task,) = await begun(deaf(ATTEMPTS, heard))
    await end([task], patience_s=0.05)
    assert not task.done()
    assert place(task).startswith("deaf at ")
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_loop_that_goes_on_after_errors_heeds_a_cancellation_that_became_one() -> None:
    tries = 0

    async def attempt() -> None:  # as a call of gRPC's that fails in the moment in which it is cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionError from None

    async def going_on() -> None:
        nonlocal tries
        while True:
            tries += 1
            try:
                await attempt()
            except ConnectionError:
                heed()

    with structlog.testing.capture_logs() as said:
        await end(await begun(going_on()))
    assert (tries, said) == (1, [])
    heed()  # and nothing where nobody was told to end
