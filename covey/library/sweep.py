"""A sweep as an object for scripts and notebooks: `covey.sweep` runs it to its end, on record as by the command."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from typing_extensions import override

from covey.client.connection import Connection
from covey.client.specification import Specification
from covey.client.sweeps.crews import Machines
from covey.client.sweeps.events import Event
from covey.client.sweeps.results import SweepResults, TrialResult
from covey.client.sweeps.running import at_coordinator, run_sweep, simulated
from covey.client.sweeps.sweep import sweep_given
from covey.errors import NotFound
from covey.library.federation import Federation
from covey.library.plot_sweep import draw_sweep, sweep_figure
from covey.library.records import Records

TRIAL_COLUMNS = ("trial", "state", "rounds", "value", "half")


class FinishedSweep:
    """What came of a sweep.

    Attributes:
        results: All of it, as plain values.
        folder: Where the record is, and simulated runs.
        warnings: What one should know of them.
    """

    def __init__(self, results: SweepResults, folder: Path, warnings: tuple[str, ...] = ()) -> None:
        self.results, self.folder, self.warnings = results, folder, warnings

    def trials(self) -> Records[TrialResult]:
        """A record a trial, the best first."""
        keys = tuple(f"params.{key}" for key in self.results.keys)
        return _Trials(self.results.trials, (*TRIAL_COLUMNS, *keys, "why"))

    def best(self) -> TrialResult:
        """The best trial: of those that came furthest.

        Raises:
            NotFound: No trial has a value.
        """
        best = next((trial for trial in self.results.trials if trial.value is not None), None)
        if best is None:
            raise NotFound(f"no trial of {self.results.name} has a value; trials() says why")
        return best

    def to_frame(self) -> Any:
        """The trials as a `pandas.DataFrame`. Raises ModuleNotFoundError where pandas is not installed."""
        return self.trials().to_frame()

    def plot(self, to: str | Path | None = None) -> Any:
        """Curves of the best trials with their seeds' interval, and values over parameters.

        Args:
            to: A .png, .svg or .pdf file; default: none is written.

        Returns:
            The `matplotlib` figure, which a notebook with `%matplotlib inline` shows.

        Raises:
            NotFound: No trial has a value, no such folder, or matplotlib is not installed.
            SpecError: Another suffix.
        """
        return sweep_figure(self.results) if to is None else draw_sweep(self.results, Path(to))[1]

    @override
    def __repr__(self) -> str:
        done, planned = len(self.results.trials), self.results.planned
        return f"<sweep {self.results.name}: {done} of {planned} trials, by {self.results.metric}; {self.folder}>"

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{html.escape(warning)}</p>" for warning in self.warnings)
        return f"<b>{html.escape(repr(self))}</b>{notes}{self.trials()._repr_html_()}"


class _Trials(Records[TrialResult]):
    """Trials, without their curves: a cell is too small for one."""

    @override
    def rows(self) -> list[dict[str, Any]]:
        left_out = ("curve", "decisions")
        return [{name: value for name, value in row.items() if name not in left_out} for row in super().rows()]


def sweep(
    spec: Specification | Mapping[str, Any],
    *,
    nodes: int | None = None,
    client: Federation | Connection | None = None,
    folder: str | Path | None = None,
    processes: int = 1,
    paths: Mapping[str, str] | None = None,
    device: str = "cpu",
    on_event: Callable[[Event], object] = lambda event: None,
) -> FinishedSweep:
    """Run a sweep to its end, as `covey sweep run` does; one that was interrupted, or killed, goes on from its record.

    Args:
        spec: A SWEEP.toml, its text, or the same as a mapping: `specification` and `sweep`.
        nodes: Simulate the runs, with so many nodes.
        client: Or: the federation whose coordinator takes care of them.
        folder: For the record, and simulated runs; default: NAME.sweep here, by the file's name or else the sweep's.
        processes: Simulated: how many train at a time, for each run that is simulated at a time.
        paths: Simulated: where the task finds the nodes' data.
        device: Simulated: what they train on.
        on_event: Told of each new event (`covey.client.sweeps.events`).

    Raises:
        ValueError: Neither nodes nor a client are given, or both; or a client and what is of simulated runs.
        SpecError: The sweep cannot work; the message names the key.
        Conflict: Another process runs it, or the folder has another sweep's record.
    """
    if (nodes is None) == (client is None):
        raise ValueError("give nodes= to simulate the sweep, or client= for a federation's; one of the two")
    if client is not None and (processes > 1 or paths or device != "cpu"):
        raise ValueError("processes, paths and device are of simulated runs: give nodes= in place of client=")
    plan, name = sweep_given(spec)
    where = Path(folder) if folder is not None else Path(f"{name}.sweep")
    if client is not None:
        connection = client.client if isinstance(client, Federation) else client
        make, facts = at_coordinator(plan, connection.target)
    else:
        make, facts = simulated(plan, where, Machines(nodes or 0, processes, paths or {}, device))
    return FinishedSweep(run_sweep(plan, where, make, facts, on_event), where, plan.warnings)
