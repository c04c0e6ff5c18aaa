"""Following a run to its end: as a live table, as plain lines, or as one JSON object for each change."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import click
from rich.console import Group as Stack
from rich.live import Live
from rich.text import Text

from covey.cli.framework.command import print_json_line
from covey.cli.framework.fields import PROGRESS_FIELDS, ROUND_FIELDS, RUN_FIELDS, plain, plain_list
from covey.cli.views import run_screen, tables
from covey.cli.views.contributions import counts_line
from covey.client.errors import Unreachable
from covey.client.progress.history import History, Read
from covey.client.progress.nodes import RunNodes, Verdicts, nodes_of
from covey.client.values import Change, Round, Run
from covey.errors import CoveyError

if TYPE_CHECKING:
    from covey.client.connection import Connection

MOST_NODES = 200
"""Of a run, that are read."""
LOOK_S, REST = 2.0, 10
"""How its nodes are is read again after so many seconds, and after so many times as long as reading it took."""
SLICE_S = 0.5
"""So long a look reads on in the rounds before those that watching begins with."""
DRAW_S = 1.0
"""A frame of the live table is made again after so many seconds, and after `REST` times as long as making it took."""


class RunViewer(Protocol):
    """Where a run's changes are shown."""

    def __enter__(self) -> RunViewer: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, change: Change) -> None:
        """Show a change."""

    def lost(self, error: Unreachable) -> None:
        """The coordinator does not answer; it is being tried again."""


def show_to_end(connection: Connection, run: str, view: RunViewer) -> Run:
    """Show a run until it has ended, across restarts of the coordinator; the run then.

    Raises:
        Unreachable: The coordinator does not answer (at first, or for long).
    """
    last: Run | None = None
    with view:
        for change in connection.watch(run, on_lost=view.lost):
            view.update(change)
            last = change.run
    if last is None:
        raise Unreachable(f"the coordinator said nothing about run {run}")
    return last


def view_for(connection: Connection, *, as_json: bool = False, no_color: bool = False) -> RunViewer:
    """The view that suits standard output."""
    if as_json:
        return JsonLines()
    if not sys.stdout.isatty():
        return PlainLines()
    verdicts = Verdicts()

    def earlier(run: Run) -> Read:
        return lambda after, limit, newest: connection.rounds(run, after=after, limit=limit, newest=newest)

    return LiveTable(lambda run: nodes_of(connection, run, verdicts, MOST_NODES), earlier, no_color=no_color)


class _Quiet:
    """What views without a screen share."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    _is_lost = False

    def lost(self, error: Unreachable) -> None:
        """Say on standard error that the coordinator is away; once, until it is back."""
        if not self._is_lost:
            click.echo(f"waiting for the coordinator: {error}", err=True)
        self._is_lost = True


class JsonLines(_Quiet):
    """One JSON object a line for each change."""

    def update(self, change: Change) -> None:
        """Write the change."""
        self._is_lost = False
        print_json_line(
            {
                "run": plain(change.run, RUN_FIELDS),
                "rounds": plain_list(change.rounds, ROUND_FIELDS),
                "nodes": plain_list(change.nodes, PROGRESS_FIELDS),
                "nodes_count": change.nodes_count,
            }
        )


class PlainLines(_Quiet):
    """A line for each round that ended, for metrics that came later, and for each change of the run."""

    def __init__(self) -> None:
        self._state, self._steps = "", 0
        self._waited = ""
        """What it waited for when that was said last: the same is not said again."""
        self._said_why = ""
        self._ended: dict[tuple[int, int], str] = {}
        """Round and attempt that were shown as ended, with the metrics shown for it."""

    def update(self, change: Change) -> None:
        """Write what is new."""
        self._is_lost = False
        for item in change.rounds:
            if item.state == "decided":
                self._round(item, f"update {item.round} of {item.invited[0]}")
            elif item.state in ("committed", "failed"):
                whole = f"/{change.run.rounds}" if change.run.rounds else ""
                self._round(item, f"round {item.round}{whole}")
        if change.run.unit == "steps" and change.run.done > self._steps:
            self._steps = change.run.done
            self._write(f"step {change.run.done}/{change.run.whole} done by all: {_at_work(change)}")
        state = change.run.state + (f": {change.run.reason}" if change.run.reason else "")
        if state not in (self._state, self._waited):
            self._state = state
            self._waited = state if change.run.reason else self._waited
            self._write(f"run {change.run.run} ({change.run.full_name}) {state}")

    def _round(self, item: Round, name: str) -> None:
        shown = self._ended.get((item.round, item.attempt))
        metrics = ", ".join(filter(None, (tables.metrics_line(item.metrics), *_missing(item))))
        self._ended[item.round, item.attempt] = metrics
        if shown is None:
            self._write(f"{name} {_end_of(item)}" + (f", {metrics}" if metrics else ""))
            if item.last_reason and item.last_reason != self._said_why:
                self._said_why = item.last_reason
                self._write(f"  {item.last_reason}")
        elif shown != metrics:
            self._write(f"{name} evaluated: {metrics}")

    def _write(self, line: str) -> None:
        click.echo(tables.safe_text(line).plain)
        sys.stdout.flush()


def _at_work(change: Change) -> str:
    """How many nodes are in each state."""
    counts = Counter(node.phase for node in change.nodes)
    return ", ".join(f"{count} {phase}" for phase, count in sorted(counts.items())) or "nobody is at work"


def _missing(item: Round) -> list[str]:
    return [f"no {name} ({reason})" for name, reason in sorted(item.missing.items())]


def _end_of(item: Round) -> str:
    if item.state == "failed":
        return f"failed: {item.reason}"
    if item.state == "decided":
        return f"{tables.outcome_of(item)}, version {item.version}" if item.version else tables.outcome_of(item)
    counts = ", ".join(filter(None, [f"{item.accepted} accepted", counts_line(item)]))
    return f"committed in {tables.span(item.seconds)}: {counts}, {tables.amount(item.bytes_received)} received"


class LiveTable:
    """A screen that is drawn again and again: the run, its curves, what its nodes do, and its last rounds.

    Args:
        read: Reads what the changes do not say of a run's nodes; None: nobody does.
        earlier: What reads rounds of a run: those before the newest, with which the changes begin, and those that
            passed while the coordinator could not be heard; None: nobody does.
        no_color: Draw without colours.
    """

    def __init__(
        self,
        read: Callable[[Run], RunNodes] | None = None,
        earlier: Callable[[Run], Read] | None = None,
        *,
        no_color: bool = False,
    ) -> None:
        self._read, self._earlier, self._due = read, earlier, 0.0
        self._lock = threading.Lock()
        """The screen is drawn by a thread of its own."""
        self._history = History()
        self._rounds: dict[int, Round] = {}
        self._change: Change | None = None
        self._nodes, self._away, self._unread, self._behind = RunNodes(), "", "", ""
        self._frame, self._stale_at = Stack(Text("waiting for the coordinator")), 0.0
        self._console = tables.console(no_color=no_color)
        self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=8, transient=False)

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._stale_at = 0.0  # what came last is drawn
        self._live.stop()

    def update(self, change: Change) -> None:
        """Draw a change."""
        with self._lock:
            rounds = self._rounds | {item.round: item for item in change.rounds}
            self._rounds = {number: rounds[number] for number in sorted(rounds)[-run_screen.SHOWN_ROUNDS :]}
            self._history.add(change.rounds)
        more = self._look(change.run)
        with self._lock:
            self._change, self._away = change, ""
        while more and change.run.ended:  # no other change comes
            more = self._read_earlier(change.run)

    def _look(self, run: Run) -> bool:
        """Read how its nodes are, and earlier rounds, unless that was done a moment ago; whether there are more."""
        began = time.monotonic()
        if self._read is None or (began < self._due and not run.ended):
            return False
        try:
            self._nodes, self._unread = self._read(run), ""
        except CoveyError as error:
            self._unread = f"how its nodes are cannot be read: {error}"
        more = self._read_earlier(run)
        now = time.monotonic()
        self._due = now + max(LOOK_S, REST * (now - began))
        return more

    def _read_earlier(self, run: Run) -> bool:
        """Read on in the rounds that the changes did not tell of, for a slice; whether there may be more."""
        history = self._history
        if self._earlier is None or run.unit == "steps" or history.is_whole:
            return False
        try:
            with self._lock:
                read = self._unlocked(self._earlier(run))
                more = history.read_on(read, ended=False, until=time.monotonic() + SLICE_S)
        except CoveyError as error:
            self._behind = f"its record cannot be read: {error}"
            return False
        known = f"{history.known:,} of {history.newest:,}"
        self._behind = "" if history.is_whole else f"reading the record: {known} {run.unit}"
        return more

    def _unlocked(self, read: Read) -> Read:
        """Reads with the lock open, so that the screen is drawn meanwhile."""

        def opened(after: int, limit: int, newest: bool) -> Sequence[Round]:
            self._lock.release()
            try:
                return read(after, limit, newest)
            finally:
                self._lock.acquire()

        return opened

    def lost(self, error: Unreachable) -> None:
        """Draw that the coordinator is away."""
        self._away = f"waiting for the coordinator: {error}"

    def _render(self) -> Stack:
        """The newest frame: a long run's takes a while to make."""
        with self._lock:
            began = time.monotonic()
            if self._change is not None and began >= self._stale_at:
                self._frame = self._made(self._change)
                now = time.monotonic()
                self._stale_at = now + max(DRAW_S, REST * (now - began))
            return self._frame

    def _made(self, change: Change) -> Stack:
        trouble = [text for text in (self._away, self._unread, self._behind) if text]
        rounds = list(self._rounds.values())
        shown = run_screen.Seen(
            change.run, self._history, rounds, change.nodes, change.nodes_count, self._nodes, trouble
        )
        is_ascii = self._console.options.ascii_only
        return Stack(*run_screen.frame(shown, time.time(), self._console.height, ascii_only=is_ascii))
