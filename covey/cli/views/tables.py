"""Tables and numbers for people."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.text import Text

from covey.cli.views.contributions import SHORT, contribution_table, counts, counts_columns, counts_line, shortfalls
from covey.cli.views.listing import Column, console, listing, said, said_lines, show, table
from covey.client.values import Contribution, Event, Node, NodeDetail, Round, RoundDetail, Run

__all__ = ["SHORT", "console", "said", "said_lines", "shortfalls", "show", "table"]
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
    "late": "yellow",
    "interrupted": "yellow",
    "declined": "yellow",
    "stopped": "yellow",
    "away": "yellow",
    "left": "yellow",
}
MAIN_METRICS = ("accuracy", "loss", "nodes/accuracy", "nodes/loss")


def state_text(state: str) -> Text:
    """A state or verdict in its colour."""
    return Text(state, style=STYLES.get(state, ""))


def adversary_text(attack: str) -> Text:
    """The attack of a drill node, to be seen."""
    return Text(said(attack).plain, style="bold red")


def when(seconds: float | None) -> str:
    """A Unix time as local time, with its distance from UTC; nothing for 0 and None."""
    return datetime.datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds") if seconds else ""


def day(seconds: float | None) -> str:
    """The day of a Unix time here; nothing for 0 and None."""
    return when(seconds)[:10]


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


def run_table(runs: Iterable[Run]) -> list[Any]:
    """One line a run; metrics and reasons below."""
    return listing(
        [
            Column("RUN"),
            Column("NAME"),
            Column("STATE"),
            Column("DONE", right=True),
            Column("SUBMITTED", below="narrow"),
            Column("METRICS", below="always"),
            Column("REASON", below="always"),
        ],
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


def pairs(rows: Iterable[tuple[str, Any]]) -> Text:
    """Names and values, one pair a line; without those that have no value."""
    shown = [(name, value) for name, value in rows if value not in ("", None)]
    width = max((len(name) for name, _ in shown), default=0)
    return Text("\n").join(
        Text.assemble((name.ljust(width + 1), "bold"), value if isinstance(value, Text) else said(str(value)))
        for name, value in shown
    )


def run_details(run: Run) -> Text:
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


def run_views(run: Run, contributions: Sequence[Contribution]) -> list[Any]:
    """One run, what each node did in it, and a warning for each that contributed to less than it was asked for."""
    nodes = contribution_table(contributions) if contributions else []
    return [run_details(run), nodes, said_lines("\n".join(shortfalls(run, contributions)))]


ROUND_COLUMNS = (
    Column("ROUND", right=True),
    Column("STATE"),
    Column("PHASE", right=True),
    Column("RECEIVED", right=True),
    Column("ACCEPT", right=True),
    *counts_columns(SHORT),
    Column("IN", right=True),
    Column("OUT", right=True),
    Column("TIME", right=True),
)


def round_table(rounds: Sequence[Round], metrics: Sequence[str] | None = None) -> list[Any]:
    """One line a round; bytes are counted at the coordinator.

    Args:
        rounds: In the order to show.
        metrics: Which metrics get a column; default: chosen by `metric_names`.
    """
    names = list(metric_names(rounds) if metrics is None else metrics)
    measured = [Column(name.upper(), right=True, below="narrow") for name in names]
    if any(item.arrival for item in rounds):
        return assignment_table(rounds, names, measured)
    return listing(
        [*ROUND_COLUMNS, *measured, Column("LAST REASON", below="always")],
        [
            (
                str(item.round),
                Text(
                    item.state if item.attempt <= 1 else f"{item.state} (attempt {item.attempt})",
                    style=STYLES.get(item.state, ""),
                ),
                str(item.phase) if item.phase > 1 else "",
                str(item.received) if item.received else "",
                str(item.accepted),
                *counts(item),
                amount(item.bytes_received),
                amount(item.bytes_sent),
                span(item.seconds) if item.seconds else "",
                *(number(item.metrics.get(name)) for name in names),
                said(item.last_reason),
            )
            for item in rounds
        ],
    )


def assignment_table(rounds: Sequence[Round], names: Sequence[str], measured: Sequence[Column]) -> list[Any]:
    """One line an assignment of an asynchronous run: from which version, what became of it, and in which version."""
    columns = [Column("ROUND", right=True), Column("NODE"), Column("OUTCOME"), Column("BASE", right=True)]
    columns += [Column(name, right=True) for name in ("VERSION", "IN", "TIME")]
    return listing(
        [*columns, *measured, Column("LAST REASON", below="always")],
        [
            (
                str(item.round),
                item.invited[0],
                state_text(outcome_of(item)),
                str(item.base_version),
                str(item.version) if item.version else "",
                amount(item.bytes_received),
                span(item.seconds) if item.seconds else "",
                *(number(item.metrics.get(name)) for name in names),
                said(item.last_reason or (item.reason if item.state == "failed" else "")),
            )
            for item in rounds
        ],
    )


def outcome_of(item: Round) -> str:
    """What became of an asynchronous assignment: its verdict, once there was a decision."""
    if item.state != "decided":
        return item.state
    return "accepted" if item.accepted else "rejected" if item.rejected else "held"


def round_details(detail: RoundDetail) -> list[Any]:
    """One round: its own line, and one line an update."""
    updates = listing(
        [
            Column("NODE"),
            Column("PHASE", right=True),
            Column("VERDICT"),
            Column("WEIGHT", right=True),
            Column("SHARE", right=True),
            Column("BYTES", right=True),
            Column("RECEIVED"),
            Column("UPDATE", below="narrow"),
            Column("NUMBERS", below="always"),
            Column("REASON", below="always"),
        ],
        [
            (
                update.node,
                str(update.phase) if any(other.phase > 1 for other in detail.updates) else "",
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
            ("capped", _capped(detail)),
            ("task's code", _code(detail)),
            *missing_rows(detail.round.missing),
            *(row for update in detail.updates for row in missing_rows(update.missing, f" of {update.node}")),
        ]
    )
    return [round_table([detail.round]), updates, facts]


def _code(detail: RoundDetail) -> str:
    """The digest of the code that the nodes ran; by node where they differ."""
    by_node = {update.node: update.code[:12] for update in detail.updates if update.code}
    if len(set(by_node.values())) < 2:
        return next(iter(by_node.values()), "")
    return "not the same on all nodes: " + ", ".join(f"{node} {code}" for node, code in by_node.items())


def _capped(detail: RoundDetail) -> str:
    """Said where weights.max_share makes a difference; empty: it makes none."""
    shares = {update.node: update.share for update in detail.updates}
    lines = [
        f"{node} has {share:.0%} of the examples and counts {shares[node]:.0%}" for node, share in detail.capped.items()
    ]
    return "weights.max_share binds: " + ", ".join(lines) if lines else ""


def node_table(nodes: Iterable[Node]) -> list[Any]:
    """One line a node; with a column DRILL where there is an adversary."""
    found = list(nodes)
    drills = any(node.drill for node in found)
    return listing(
        [
            Column("NODE"),
            Column("STATE"),
            *([Column("DRILL")] if drills else []),
            Column("LAST SEEN"),
            Column("ACCEPT", right=True),
            *counts_columns(SHORT),
            Column("VERSION", below="narrow"),
            Column("VALID UNTIL", below="narrow"),
            Column("DEVICE", below="narrow"),
            Column("LAST REASON", below="always"),
        ],
        [
            (
                node.node,
                state_text(node.state),
                *([adversary_text(node.drill)] if drills else []),
                when(node.last_seen_at),
                str(node.accepted),
                *counts(node),
                said(node.version),
                day(node.certificate_expires_at),
                said(node.device),
                said(node.last_reason),
            )
            for node in found
        ],
    )


def node_details(detail: NodeDetail) -> list[Any]:
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
            ("updates", ", ".join(filter(None, [f"{node.accepted} accepted", counts_line(node)]))),
            ("last reason", node.last_reason),
        ]
    )
    return [facts, event_lines(detail.events)]


def event_lines(events: Iterable[Event]) -> Text:
    """One line an event."""
    return Text("\n").join(_event(item) for item in events)


def _event(item: Event) -> Text:
    of = "  ".join(filter(None, [when(item.at), item.kind, item.node, item.run and f"run {item.run}"]))
    detail = _detail(item.detail)
    return said(f"{of}  {detail}" if detail else of)


def _detail(detail: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in detail.items())
