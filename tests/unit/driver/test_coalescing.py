"""Events that repeat: the machine hears of them once a second, and of the last one before it would give up."""

from __future__ import annotations

from covey.driver.driver import Driver


class Patient:
    """Gives up ten seconds after the last sign of life."""

    def __init__(self):
        self.taken, self.last, self.done = [], 0.0, False

    @property
    def wake_at(self):
        return self.last + 10

    def handle(self, event):
        self.taken.append(event)
        kind, now = event
        if kind == "progress":
            self.last = now
        elif now >= self.wake_at:
            self.done = True
        return []


async def ignore(action):
    """Nothing is done here."""


def repeats(event):
    return "ada" if event[0] == "progress" else None


async def test_repeated_events_are_told_once_a_second_and_the_last_one_before_the_machine_gives_up():
    now = 0.0
    machine = Patient()
    driver = Driver(ignore, clock=lambda: now, tick=lambda now: ("tick", now), repeats=repeats)
    driver.post(("stop", 1e9))
    await driver.drive(machine)  # so that it has its machine
    machine.done, machine.taken = False, []
    for tenth in range(25):
        now = tenth / 10
        await driver.take(("progress", now))
    assert machine.taken == [("progress", 0.0), ("progress", 1.0), ("progress", 2.0)]
    now = 5.0
    await driver.take(("other", now))
    assert machine.taken[3:] == [("other", 5.0)]
    now = 12.0
    await driver.take(("tick", now))
    assert machine.taken[4:] == [("progress", 2.4), ("tick", 12.0)]
    assert not machine.done
    now = 12.5
    await driver.take(("tick", now))
    assert machine.done


async def test_each_node_is_heard_of():
    machine = Patient()
    driver = Driver(ignore, clock=lambda: 0.0, tick=lambda now: ("tick", now), repeats=lambda event: event[0])
    await driver.drive(machine, [("ada", 0.0), ("bob", 0.0), ("ada", 0.1), ("stop", 1e9)])
    assert machine.taken == [("ada", 0.0), ("bob", 0.0), ("stop", 1e9)]
