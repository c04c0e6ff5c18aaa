"""Runs a sweep to its end, from its beginning or from where it was left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from covey.client.experiments.simulated import played
from covey.client.sweeps.driver import OnEvent, drive
from covey.client.sweeps.record import SweepRecord
from covey.client.sweeps.results import SweepResults, results_of
from covey.client.sweeps.sweep import Sweep
from covey.client.sweeps.trials import Trials
from covey.telemetry import quiet_by_default

Make = Callable[[bool], Trials]
"""Makes what runs a sweep's runs; told whether the sweep begins now."""


def run_sweep(
    sweep: Sweep, folder: Path, make: Make, where: Mapping[str, Any], on_event: OnEvent = lambda event: None
) -> SweepResults:
    """Run a sweep; one that was interrupted, or killed, goes on from its record.

    Args:
        sweep: Which.
        folder: Where its record is, and its runs if they are simulated.
        make: Makes what runs its runs.
        where: What that depends on: a sweep goes on with the same only.
        on_event: Told of each new event.

    Raises:
        Conflict: Another process runs it, or the folder has another sweep's record.
        CoveyError: As `Trials`; what was measured until then is on record.
    """
    with quiet_by_default(), SweepRecord(folder, {**sweep.head, "where": dict(where)}) as record:
        machine = sweep.machine()

        async def work() -> None:
            await drive(machine, record, make(not record.events), on_event)

        played(work())
        return results_of(sweep, machine)
