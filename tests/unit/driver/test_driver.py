"""The driver with a machine of its own: one that knows of no coordinator."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from covey.driver.background import Background
from covey.driver.changes import Changes
from covey.driver.driver import Driver


class Counter:
    """Asks to have each event done, and is done after so many; wakes when told to."""

    def __init__(self, until, wake_at=None):
        self.until, self.wake_at = until, wake_at
        self.taken = []

    @property
    def done(self):
        return len(self.taken) >= self.until

    def handle(self, event):
        self.taken.append(event)
        return [("do", event), ("and", event)]


@pytest.fixture
def done():
    return []


@pytest.fixture
def driver(done):
    async def do(action):
        await asyncio.sleep(0)
        done.append(action)

    return Driver(do, clock=lambda: 100.0, tick=lambda now: f"tick at {now:g}")


async def test_events_are_taken_in_order_and_each_action_is_done_before_the_next(driver, done):
    driver.post("posted before the machine was made")
    await driver.drive(Counter(3), ["first", "second"])
    events = ["first", "second", "posted before the machine was made"]
    assert done == [(what, event) for event in events for what in ("do", "and")]


async def test_a_tick_comes_when_the_machine_wants_one(driver, done):
    await driver.drive(Counter(1, wake_at=99.0))
    assert done[0] == ("do", "tick at 100")


async def test_what_an_action_brings_about_goes_before_what_is_posted(done):
    async def do(action):
        done.append(action)
        if action == ("do", "first"):
            await nested.take("inner")

    nested = Driver(do, clock=lambda: 0.0, tick=str)
    nested.post("outer")
    await nested.drive(Counter(3), ["first"])
    assert [event for what, event in done if what == "do"] == ["first", "inner", "outer"]


async def test_before_there_is_a_machine_nothing_is_taken(driver, done):
    await driver.take("early")
    assert done == []


async def test_a_crash_of_work_beside_the_events_comes_out(driver):
    async def crash():
        raise ValueError("of the work")

    driver.spawn(crash())
    with pytest.raises(ValueError, match="of the work"):
        await driver.drive(Counter(10))


async def test_a_crash_of_work_after_the_machine_is_done_is_logged(driver):
    async def crash():
        raise ValueError("of the work")

    await driver.drive(Counter(1), ["first"])
    with capture_logs() as logs:
        driver.spawn(crash())
        await driver.settle()
        await asyncio.sleep(0)
    assert [(entry["log_level"], str(entry["exc_info"])) for entry in logs] == [("error", "of the work")]


async def test_a_crash_of_work_in_the_machine_s_last_moment_is_logged():
    async def crash():
        raise ValueError("of the work")

    async def do(action):
        if action == ("do", "first"):
            crashing.spawn(crash())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    crashing = Driver(do, clock=lambda: 0.0, tick=str)
    with capture_logs() as logs:
        await crashing.drive(Counter(2), ["first", "second"])
    assert [(entry["log_level"], str(entry["exc_info"])) for entry in logs] == [("error", "of the work")]


async def test_work_beside_the_events_can_be_waited_for_and_given_up(driver, done):
    go_on = asyncio.Event()

    async def work(name):
        await go_on.wait()
        done.append(name)

    driver.spawn(work("waited for"))
    go_on.set()
    await driver.settle()
    go_on.clear()
    driver.spawn(work("given up"))
    await driver.close()
    assert done == ["waited for"]


async def test_it_is_quiet_when_only_an_event_from_outside_can_move_it(driver):
    go_on = asyncio.Event()
    assert not driver.is_quiet
    task = asyncio.create_task(driver.drive(Counter(2)))
    await asyncio.sleep(0)
    assert driver.is_quiet
    driver.spawn(go_on.wait())
    assert not driver.is_quiet
    go_on.set()
    await driver.settle()
    driver.post("one")
    assert not driver.is_quiet
    driver.post("two")
    await task
    assert not driver.is_quiet


async def test_each_event_is_reported_once_its_actions_are_done(done):
    async def do(action):
        done.append(action)

    driver = Driver(do, clock=lambda: 0.0, tick=str, on_handled=lambda: done.append("handled"))
    await driver.drive(Counter(1), ["first"])
    assert done == [("do", "first"), ("and", "first"), "handled"]


async def test_what_goes_wrong_in_the_background_stays_there():
    async def crash():
        raise ValueError("of nobody")

    background = Background()
    task = background.spawn(crash())
    assert not background.is_idle
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0)
    assert background.is_idle


async def test_those_who_wait_for_a_change_miss_none():
    changes = Changes()
    waiting = asyncio.create_task(changes.after(0))
    await asyncio.sleep(0)
    changes.notify()
    assert await waiting == 1
    changes.notify()
    assert await changes.after(1) == 2
