"""Drives a sweep: what the machine decides is recorded and done, until nothing is left to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from covey.client.sweeps.events import Decided, Event, Failed, Measured
from covey.client.sweeps.machine import SweepMachine, Work
from covey.client.sweeps.record import SweepRecord
from covey.client.sweeps.trials import Trials

GIVEN_UP = ("pruned", "failed")
OnEvent = Callable[[Event], object]


async def drive(machine: SweepMachine, record: SweepRecord, trials: Trials, on_event: OnEvent) -> None:
    """Run a sweep to its end, from where its record is.

    Args:
        machine: What decides, before the first event.
        record: Of the sweep; every event is on the disk before it takes effect.
        trials: Where runs are run; it is started and closed.
        on_event: Told of each new event.

    Raises:
        CoveyError: As `Trials`; what was measured until then is on record.
    """
    for event in record.events:
        machine.apply(event)
    tasks: dict[asyncio.Task[Measured | Failed], Work] = {}

    async def note(event: Event) -> None:
        record.append(event)
        machine.apply(event)
        on_event(event)
        if isinstance(event, Decided) and event.decision in GIVEN_UP:
            await trials.give_up(event.trial, event.rung)

    try:
        await trials.start()
        for trial in machine.trials:
            if trial.state in GIVEN_UP:  # it may have been decided, and not done any more
                await trials.give_up(trial.number, trial.rung)
        while True:
            while (decision := machine.decide()) is not None:
                await note(decision)
            begun = set(tasks.values())
            for work in [work for work in machine.work() if work not in begun][: trials.at_once - len(tasks)]:
                tasks[asyncio.create_task(trials.measure(work))] = work
            if not tasks:
                return
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: tasks[task]):
                await note(task.result())
                del tasks[task]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await trials.close()
