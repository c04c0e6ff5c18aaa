"""Tables and numbers for people."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from covey.client.values import Event, Node, NodeDetail, Round, RoundDetail, Run

PIPE_COLUMNS = 240
"""Width of what does not go to a terminal: nothing is cut."""
STYLES = {
    "completed": "green",
    "committed": "green",
    "accepted": "green",
    "connected": "green",
    "running": "cyan",
    "collecting": "cyan",
    "aggregating": "cyan",
    "held": "cyan",
    "failed": "red",
    "rejected": "red",
    "evicted": "red",
    "lost": "yellow",
    "declined": "yellow",
    "stopped": "yellow",
    "away": "yellow",
    "left": "yellow",
}
WRAPPED = ("REASON", "DETAIL", "NUMBERS", "TASKS", "DEVICE", "METRICS", "FROM", "OPTIONS", "TYPE")
NARROW_COLUMNS = 110
"""On a narrower terminal only the first two metrics get columns."""
MAIN_METRICS = ("accuracy", "loss", "nodes/accuracy", "nodes/loss")


def console() -> Console:
    """Standard output."""
    width = None if sys.stdout.isatty() else PIPE_COLUMNS
    return Console(width=width, highlight=False, markup=False, emoji=False, file=sys.stdout)


def show(*things: Any) -> None:
    """Print tables and lines, an empty line between them."""
    output = console()
    for number, thing in enumerate(things):
        if number:
            output.print()
        output.print(thing)


def table(columns: Sequence[str]) -> Table:
    """An empty table; a column whose name begins with `>` is aligned to the right, long texts are wrapped."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        justify: Literal["left", "right"] = "right" if name.startswith(">") else "left"
        text = name.lstrip(">")
        made.add_column(text, justify=justify, no_wrap=text not in WRAPPED, overflow="fold", min_width=len(text))
    return made


def filled_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A table without the columns that are empty in every row (unless there is no row)."""
    lines = list(rows)
    shown = [index for index in range(len(columns)) if not lines or any(line[index] for line in lines)]
    made = table([columns[index] for index in shown])
    for line in lines:
        made.add_row(*(line[index] for index in shown))
    return made


def said(text: str) -> Text:
    """What a node, or a user's code, said: nothing in it can steer the terminal."""
    return Text("".join(char if char.isprintable() else " " for char in text))


def state_text(state: str) -> Text:
    """A state or verdict in its colour."""
    return Text(state, style=STYLES.get(state, ""))


def adversary_text(attack: str) -> Text:
    """The attack of a drill node, to be seen."""
    return Text(said(attack).plain, style="bold red")


def when(seconds: float | None) -> str:
    """A Unix time as local time; nothing for 0 and None."""
    return f"{datetime.datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}" if seconds else ""


def amount(count: int) -> str:
    """A number of bytes."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def span(seconds: float) -> str:
    """A time span."""
    if seconds < 120:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def number(value: object) -> str:
    """A metric."""
    return f"{value:.4f}" if isinstance(value, int | float) else ""


def metric_names(rounds: Iterable[Round]) -> list[str]:
    """Which metrics of some rounds get a column."""
    return main_metrics({name for item in rounds for name in item.metrics})


def main_metrics(known: Iterable[str]) -> list[str]:
    """Which of these metrics get a column: the main ones, else the first two by name."""
    names = sorted(known)
    return [name for name in MAIN_METRICS if name in names] or names[:2]


def metrics_line(metrics: Mapping[str, Any]) -> str:
    """All metrics on one line."""
    return ", ".join(f"{name} {number(value)}" for name, value in sorted(metrics.items()))


def missing_rows(missing: Mapping[str, Any], of: str = "") -> list[tuple[str, str]]:
    """Why metrics are missing, one row each; `of`: the node that lacks them."""
    return [(f"no {name}{of}", str(reason)) for name, reason in sorted(missing.items())]


def done_of(run: Run) -> tuple[int, int, str]:
    """How far a run is: so many of so many, and of what."""
    return run.done, run.whole, "updates decided on" if run.unit == "updates" else "rounds committed"


def run_table(runs: Iterable[Run]) -> Table:
    """One line a run."""
    return filled_table(
        ["RUN", "NAME", "STATE", ">DONE", "SUBMITTED", "METRICS", "REASON"],
        [
            (
                run.run,
                run.name,
                state_text(run.state),
                f"{done_of(run)[0]}/{done_of(run)[1]}",
                when(run.submitted_at),
                metrics_line(run.metrics),
                said(run.reason),
            )
            for run in runs
        ],
    )


def pairs(rows: Iterable[tuple[str, Any]]) -> Table:
    """Names and values, one pair a line; without those that have no value."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        if value not in ("", None):
            made.add_row(name, value if isinstance(value, Text) else said(str(value)))
    return made


def run_details(run: Run) -> Table:
    """Everything about one run but its specification."""
    return pairs(
        [
            ("run", run.run),
            ("name", run.name),
            ("mode", run.mode),
            ("state", state_text(run.state)),
            ("reason", run.reason),
            ("progress", "{} of {} {}".format(*done_of(run))),
            ("model version", run.model_version),
            ("model sha256", run.model_sha256),
            ("metrics", metrics_line(run.metrics)),
            *missing_rows(run.missing),
            ("submitted", when(run.submitted_at)),
            ("started", when(run.started_at)),
            ("ended", when(run.ended_at)),
            ("nodes", ", ".join(run.roster)),
        ]
    )


def round_table(rounds: Sequence[Round], metrics: Sequence[str] | None = None) -> Table:
    """One line a round; bytes are counted at the coordinator.

    Args:
        rounds: In the order to show.
        metrics: Which metrics get a column; default: chosen by `metric_names`.
    """
    names = list(metric_names(rounds) if metrics is None else metrics)
    if console().width < NARROW_COLUMNS:
        del names[2:]
    if any(item.arrival for item in rounds):
        return assignment_table(rounds, names)
    made = table([">ROUND", "STATE", ">ACCEPT", ">REJECT", ">IN", ">OUT", ">TIME", *(f">{n.upper()}" for n in names)])
    for item in rounds:
        values = item.metrics
        state = item.state if item.attempt <= 1 else f"{item.state} (attempt {item.attempt})"
        made.add_row(
            str(item.round),
            Text(state, style=STYLES.get(item.state, "")),
            str(item.accepted),
            str(item.rejected),
            amount(item.bytes_received),
            amount(item.bytes_sent),
            span(item.seconds) if item.seconds else "",
            *(number(values.get(name)) for name in names),
        )
    return made


def assignment_table(rounds: Sequence[Round], metrics: Sequence[str]) -> Table:
    """One line an assignment of an asynchronous run: from which version, what became of it, and in which version."""
    made = table(
        [">ROUND", "NODE", "OUTCOME", ">BASE", ">VERSION", ">IN", ">TIME", *(f">{n.upper()}" for n in metrics)]
    )
    for item in rounds:
        values = item.metrics
        made.add_row(
            str(item.round),
            item.invited[0],
            state_text(outcome_of(item)),
            str(item.base_version),
            str(item.version) if item.version else "",
            amount(item.bytes_received),
            span(item.seconds) if item.seconds else "",
            *(number(values.get(name)) for name in metrics),
        )
    return made


def outcome_of(item: Round) -> str:
    """What became of an asynchronous assignment: its verdict, once there was a decision."""
    if item.state != "decided":
        return item.state
    return "accepted" if item.accepted else "rejected" if item.rejected else "held"


def round_details(detail: RoundDetail) -> list[Table]:
    """One round: its own line, and one line an update."""
    updates = filled_table(
        ["NODE", "VERDICT", ">WEIGHT", ">SHARE", ">BYTES", "RECEIVED", "UPDATE", "NUMBERS", "REASON"],
        [
            (
                update.node,
                state_text(update.verdict),
                f"{update.weight:g}",
                f"{update.share:.4f}",
                amount(update.bytes),
                when(update.received_at),
                update.digest[:12],
                metrics_line(update.numbers),
                said(update.reason),
            )
            for update in detail.updates
        ],
    )
    facts = pairs(
        [
            ("started", when(detail.round.started_at)),
            ("committed", when(detail.round.committed_at)),
            ("base version", detail.round.base_version),
            ("version", detail.round.version or ""),
            ("reason", detail.round.reason),
            ("model sha256", detail.version.model_sha256 if detail.version else ""),
            ("metrics", metrics_line(detail.round.metrics)),
            *missing_rows(detail.round.missing),
            *(row for update in detail.updates for row in missing_rows(update.missing, f" of {update.node}")),
        ]
    )
    return [round_table([detail.round]), updates, facts]


def node_table(nodes: Iterable[Node]) -> Table:
    """One line a node; with a column DRILL where there is an adversary."""
    found = list(nodes)
    drills = any(node.drill for node in found)
    return filled_table(
        [
            "NODE",
            "STATE",
            *(["DRILL"] if drills else []),
            "LAST SEEN",
            ">ACCEPT",
            ">REJECT",
            "VERSION",
            "VALID UNTIL",
            "DEVICE",
        ],
        [
            (
                node.node,
                state_text(node.state),
                *([adversary_text(node.drill)] if drills else []),
                when(node.last_seen_at),
                str(node.accepted),
                str(node.rejected),
                said(node.version),
                when(node.certificate_expires_at)[:10],
                said(node.device),
            )
            for node in found
        ],
    )


def node_details(detail: NodeDetail) -> list[Table]:
    """One node, and what happened to it."""
    node = detail.node
    facts = pairs(
        [
            ("node", node.node),
            ("state", state_text(node.state)),
            ("enrolled", when(node.enrolled_at)),
            ("last seen", when(node.last_seen_at)),
            ("certificate until", when(node.certificate_expires_at)),
            ("covey", node.version),
            ("device", node.device),
            ("tasks", ", ".join(node.tasks)),
            ("drill", adversary_text(node.drill) if node.drill else ""),
            ("updates", f"{node.accepted} accepted, {node.rejected} rejected"),
        ]
    )
    return [facts, event_table(detail.events)]


def event_table(events: Iterable[Event]) -> Table:
    """One line an event."""
    return filled_table(
        ["WHEN", "WHAT", "RUN", "DETAIL"],
        [(when(item.at), item.kind, item.run, said(_detail(item.detail))) for item in events],
    )


def _detail(detail: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in detail.items())
