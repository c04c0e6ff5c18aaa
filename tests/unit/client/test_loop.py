"""Coroutines behind a plain face."""

from __future__ import annotations

import asyncio
import signal
import threading

import pytest

from covey.client.loop import LoopThread


async def name_of_thread():
    await asyncio.sleep(0)
    return threading.current_thread().name


def test_a_coroutine_runs_in_the_loops_own_thread_which_ends_with_it():
    before = set(threading.enumerate())  # those of connections that other tests hold are among them
    with LoopThread() as loop:
        assert loop.run(name_of_thread()) == "covey-client"
        assert [thread.name for thread in set(threading.enumerate()) - before] == ["covey-client"]
    assert set(threading.enumerate()) <= before


def test_an_error_comes_out_as_it_is():
    async def fails():
        raise KeyError("here")

    with LoopThread() as loop, pytest.raises(KeyError, match="here"):
        loop.run(fails())


def test_closing_cancels_what_still_runs():
    ended = []

    async def waits_for_ever():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def starts_it():
        task = asyncio.create_task(waits_for_ever())
        await asyncio.sleep(0)
        return task

    with LoopThread() as loop:
        assert not loop.run(starts_it()).done()
    assert ended == ["cancelled"]


async def counting(ended):
    try:
        for number in range(10):
            yield number
    finally:
        ended.append(True)


def test_items_are_taken_one_by_one_and_the_generator_is_closed():
    ended = []
    with LoopThread() as loop:
        assert list(loop.iterate(counting(ended))) == list(range(10))
        assert ended == [True]
        items = loop.iterate(counting(ended))
        assert [next(items), next(items)] == [0, 1]
        assert ended == [True]
        items.close()
        assert ended == [True, True]


async def waiting(began, ended):
    try:
        began.set()
        await asyncio.sleep(3600)
        yield 0
    finally:
        await asyncio.sleep(0.05)
        ended.append(True)


def test_who_is_interrupted_while_waiting_for_an_item_ends_as_such_and_the_generator_is_closed():
    began, ended, main = threading.Event(), [], threading.get_ident()

    def interrupt():
        began.wait()
        signal.pthread_kill(main, signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    with LoopThread() as loop:
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            next(loop.iterate(waiting(began, ended)))
        assert ended == [True]
    interrupting.join()


def test_an_iterator_that_was_left_starts_nothing_after_the_end():
    ended = []
    before = set(threading.enumerate())
    with LoopThread() as loop:
        items = loop.iterate(counting(ended))
        assert next(items) == 0
    assert ended == [True]
    items.close()
    assert set(threading.enumerate()) <= before


def test_a_closed_loop_runs_nothing():
    with LoopThread() as loop:
        loop.run(name_of_thread())
    with pytest.raises(RuntimeError, match="is closed"):
        loop.run(name_of_thread())
