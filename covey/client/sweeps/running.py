"""Runs a sweep to its end, from its beginning or from where it was left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from covey.client.connection import Connection
from covey.client.experiments.simulated import played
from covey.client.sweeps.crews import Machines
from covey.client.sweeps.deployed import DeployedTrials
from covey.client.sweeps.driver import OnEvent, drive
from covey.client.sweeps.gossip import GossipTrials
from covey.client.sweeps.record import SweepRecord
from covey.client.sweeps.results import SweepResults, results_of
from covey.client.sweeps.simulated import SimulatedTrials
from covey.client.sweeps.sweep import Sweep
from covey.client.sweeps.trials import Trials
from covey.client.target import Target
from covey.errors import SpecError
from covey.telemetry import quiet_by_default

Make = Callable[[bool], Trials]
"""Makes what runs a sweep's runs; told whether the sweep begins now."""


def simulated(sweep: Sweep, folder: Path, machines: Machines) -> tuple[Make, Mapping[str, Any]]:
    """Runs that are simulated here: what makes them, and what they depend on, for `run_sweep`."""
    kind = SimulatedTrials if sweep.spec.facts.coordinated else GossipTrials
    return lambda is_new: kind(sweep, folder, machines, is_new=is_new), {"nodes": machines.nodes}


def at_coordinator(sweep: Sweep, target: Target) -> tuple[Make, Mapping[str, Any]]:
    """The same of runs at a coordinator.

    Raises:
        SpecError: Nobody there knows what the runs come to.
    """
    if not sweep.spec.facts.coordinated:
        raise SpecError(
            f'mode: in a run of mode "{sweep.spec.mode}" the coordinator sees no model, and has no value by which '
            "trials could be compared; simulate the sweep (covey sweep run --nodes, or nodes= in Python)"
        )
    return lambda is_new: DeployedTrials(sweep, Connection(target), is_new=is_new), {"runs": "at a coordinator"}


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
