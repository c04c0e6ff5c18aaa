"""Following a run to its end: as a live table, as plain lines, or as one JSON object for each change."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import click
from rich.console import Group as Stack
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from covey.cli.framework.command import print_json_line
from covey.cli.framework.connection import Unreachable, connect
from covey.cli.framework.fields import PROGRESS_FIELDS, ROUND_FIELDS, RUN_FIELDS, plain, plain_list
from covey.cli.views import tables
from covey.protos import admin_pb2 as pb

if TYPE_CHECKING:
    from covey.cli.framework.options import Target

ENDED = ("completed", "failed", "stopped")
RETRY_S = 1.0
AWAY_S = 120.0
"""How long a coordinator that was there may be away (a restart) before following it is given up."""
SHOWN_ROUNDS = 12
BAR_COLUMNS = 24


class View(Protocol):
    """Where a run's changes are shown."""

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, status: pb.RunStatus) -> None:
        """Show a change."""

    def lost(self, error: Unreachable) -> None:
        """The coordinator does not answer; it is being tried again."""


def follow(target: Target, run: str, view: View) -> pb.Run:
    """Follow a run until it has ended, across restarts of the coordinator.

    Args:
        target: The coordinator.
        run: The run's id or name.
        view: Where to show it.

    Returns:
        The run in its terminal state.

    Raises:
        Unreachable: The coordinator does not answer (at first, or for `AWAY_S`).
    """
    last: pb.Run | None = None
    with view:
        for status in statuses(target, run, view.lost):
            view.update(status)
            last = status.run
    if last is None:
        raise Unreachable(f"the coordinator said nothing about run {run}")
    return last


def statuses(target: Target, run: str, lost: Callable[[Unreachable], None]) -> Iterator[pb.RunStatus]:
    """A run's changes until it has ended; a broken connection is made again."""
    away_since: float | None = None
    heard = False
    while True:
        try:
            with connect(target) as admin:
                for status in admin.stream("WatchRun", pb.RunRequest(run=run)):
                    heard, away_since = True, None
                    yield status
                    if status.run.state in ENDED:
                        return
        except Unreachable as error:
            now = time.monotonic()
            away_since = away_since or now
            if not heard or now - away_since > AWAY_S:
                raise
            lost(error)
        time.sleep(RETRY_S)


def view_for(as_json: bool) -> View:
    """The view that suits standard output."""
    if as_json:
        return JsonLines()
    return LiveTable() if sys.stdout.isatty() else PlainLines()


class _Quiet:
    """What views without a screen share."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def lost(self, error: Unreachable) -> None:
        """Say on standard error that the coordinator is away."""
        click.echo(f"waiting for the coordinator: {error}", err=True)


class JsonLines(_Quiet):
    """One JSON object a line for each change."""

    def update(self, status: pb.RunStatus) -> None:
        """Write the change."""
        print_json_line(
            {
                "run": plain(status.run, RUN_FIELDS),
                "rounds": plain_list(status.rounds, ROUND_FIELDS),
                "nodes": plain_list(status.nodes, PROGRESS_FIELDS),
            }
        )


class PlainLines(_Quiet):
    """A line for each round that ended, for metrics that came later, and for each change of the run."""

    def __init__(self) -> None:
        self._state = ""
        self._ended: dict[tuple[int, int], str] = {}
        """Round and attempt that were shown as ended, with the metrics shown for it."""

    def update(self, status: pb.RunStatus) -> None:
        """Write what is new."""
        for item in status.rounds:
            if item.state == "decided":
                self._round(item, f"update {item.round} of {item.invited[0]}")
            elif item.state in ("committed", "failed"):
                whole = f"/{status.run.rounds}" if status.run.rounds else ""
                self._round(item, f"round {item.round}{whole}")
        state = status.run.state + (f": {status.run.reason}" if status.run.reason else "")
        if state != self._state:
            self._state = state
            self._write(f"run {status.run.run} ({status.run.name}) {state}")

    def _round(self, item: pb.Round, name: str) -> None:
        shown = self._ended.get((item.round, item.attempt))
        metrics = tables.metrics_line(item.metrics)
        self._ended[item.round, item.attempt] = metrics
        if shown is None:
            self._write(f"{name} {_end_of(item)}" + (f", {metrics}" if metrics else ""))
        elif shown != metrics:
            self._write(f"{name} evaluated: {metrics}")

    def _write(self, line: str) -> None:
        click.echo(tables.said(line).plain)
        sys.stdout.flush()


def _end_of(item: pb.Round) -> str:
    if item.state == "failed":
        return f"failed: {item.reason}"
    if item.state == "decided":
        return f"{tables.outcome_of(item)}, version {item.version}" if item.version else tables.outcome_of(item)
    rejected = f", {item.rejected} rejected" if item.rejected else ""
    received = tables.amount(item.bytes_received)
    return f"committed in {tables.span(item.seconds)}: {item.accepted} accepted{rejected}, {received} received"


class LiveTable:
    """A screen that is drawn again at each change: the run, its last rounds, and what its nodes do."""

    def __init__(self) -> None:
        self._rounds: dict[int, pb.Round] = {}
        self._away = ""
        self._status: pb.RunStatus | None = None
        self._live = Live(console=tables.console(), get_renderable=self._render, refresh_per_second=8, transient=False)

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self, status: pb.RunStatus) -> None:
        """Draw a change."""
        self._rounds.update({item.round: item for item in status.rounds})
        self._status, self._away = status, ""

    def lost(self, error: Unreachable) -> None:
        """Draw that the coordinator is away."""
        self._away = f"waiting for the coordinator: {error}"

    def _render(self) -> Stack:
        status = self._status
        if status is None:
            return Stack(Text("waiting for the coordinator"))
        rounds = [self._rounds[number] for number in sorted(self._rounds)]
        metrics = tables.metric_names(rounds)
        parts: list[Any] = [run_line(status.run), tables.round_table(rounds[-SHOWN_ROUNDS:], metrics)]
        if status.nodes and status.run.state not in ENDED:
            parts.append(progress_table(status.nodes))
        if self._away:
            parts.append(Text(self._away, style="yellow"))
        return Stack(*parts)


def run_line(run: pb.Run) -> Text:
    """A run and how far it is, on one line."""
    line = Text.assemble((run.name, "bold"), f" ({run.run})  ", tables.state_text(run.state))
    done, whole, what = tables.done_of(run)
    counts_updates = tables.unit_of(run.mode) == "updates"
    line.append(f"  {done} of {whole} {what}" if counts_updates else f"  round {done} of {whole}")
    return line.append_text(Text("  ") + tables.said(run.reason)) if run.reason else line


def progress_table(nodes: Any) -> Any:
    """What each node does now, with the progress of its local training."""
    made = tables.table(["NODE", "DOES", "PROGRESS", ">STEP", ">LOSS", ">TIME"])
    for node in nodes:
        training = node.steps > 0
        made.add_row(
            node.node,
            tables.state_text(node.phase),
            ProgressBar(total=max(1, node.steps), completed=node.step, width=BAR_COLUMNS),
            f"{node.step}/{node.steps}" if training else "",
            f"{node.loss:.4f}" if training else "",
            f"{node.seconds:.1f} s" if training else "",
        )
    return made
