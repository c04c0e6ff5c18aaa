"""How far a simulation is, on standard error: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from covey.cli.views.tables import number
from covey.spec.modes import mode_named

if TYPE_CHECKING:
    from covey.simulation.plan import SimulationProgress

LINE_S = 2.0
"""Between two lines, where there is no terminal."""


class SimulationViewer(Protocol):
    """Where a simulation's progress is shown."""

    def __enter__(self) -> SimulationViewer: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, progress: SimulationProgress) -> None:
        """Show it."""


def view() -> SimulationViewer:
    """The view that suits standard error."""
    return Bars() if sys.stderr.isatty() else Lines()


class Bars:
    """One bar for the run and one for the open round."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._run = self._bars.add_task("starting", total=None, text="")
        self._round = self._bars.add_task("updates", total=None, text="", visible=False)

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self, progress: SimulationProgress) -> None:
        """Draw it."""
        self._bars.update(
            self._run,
            description=_unit(progress),
            completed=progress.done,
            total=progress.whole,
            text=_metrics_text(progress),
        )
        self._bars.update(
            self._round, completed=progress.answered, total=max(1, progress.invited), visible=progress.invited > 0
        )


class Lines:
    """A line every few seconds, if something has moved."""

    def __init__(self) -> None:
        self._shown: tuple[int, float] = (0, 0.0)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, progress: SimulationProgress) -> None:
        """Write it."""
        done, at = self._shown
        if progress.done > done and time.monotonic() - at >= LINE_S:
            self._shown = progress.done, time.monotonic()
            text = _metrics_text(progress)
            line = f"{progress.done} of {progress.whole} {_unit(progress)}" + (f": {text}" if text else "")
            click.echo(line, err=True)


def _unit(progress: SimulationProgress) -> str:
    return mode_named(progress.mode).unit


def _metrics_text(progress: SimulationProgress) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in sorted(progress.metrics.items()))
