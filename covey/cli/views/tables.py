"""Tables and numbers for people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.text import Text

from covey.cli.views.contributions import SHORT, contribution_table, counts, counts_columns, counts_line, shortfalls
from covey.cli.views.event_lines import event_lines, local_lines, log_lines, site_lines
from covey.cli.views.listing import Column, console, listing, pairs, safe_lines, safe_text, show, table
from covey.cli.views.node_tables import admin_table, node_details, node_table, study_facts, study_table, token_table
from covey.cli.views.times import when
from covey.cli.views.words import STYLES, adversary_text, amount, number, span, state_text
from covey.client.values import Contribution, NodeProgress, Round, RoundDetail, Run
from covey.metrics import NODES

__all__ = [
    "SHORT",
    "STYLES",
    "admin_table",
    "adversary_text",
    "amount",
    "console",
    "counts_line",
    "event_lines",
    "local_lines",
    "log_lines",
    "node_details",
    "node_table",
    "number",
    "pairs",
    "safe_lines",
    "safe_text",
    "shortfalls",
    "show",
    "site_lines",
    "span",
    "state_text",
    "study_facts",
    "study_table",
    "table",
    "token_table",
    "when",
]
MAIN_METRICS = ("accuracy", "loss", f"{NODES}accuracy", f"{NODES}loss")


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
    what = {"updates": "updates decided on", "steps": "steps done by all"}.get(run.unit, "rounds committed")
    return run.done, run.whole, what


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
            Column("CONTINUES", below="always"),
            Column("REASON", below="always"),
        ],
        [
            (
                run.run,
                run.full_name,
                state_text(run.state),
                f"{done_of(run)[0]}/{done_of(run)[1]}",
                when(run.submitted_at),
                metrics_line(run.metrics),
                safe_text(run.parent),
                safe_text(run.reason),
            )
            for run in runs
        ],
    )


MOST_NODES = 100
"""Of a roster so many are named beside the run's state."""


def run_details(run: Run) -> Text:
    """Everything about one run but its specification."""
    return pairs(
        [
            ("run", run.run),
            ("name", run.full_name),
            ("mode", run.mode),
            ("state", state_text(run.state)),
            ("reason", run.reason),
            ("progress", "{} of {} {}".format(*done_of(run))),
            ("continues", run.parent),
            ("model version", run.model_version),
            ("model sha256", run.model_sha256),
            ("metrics", metrics_line(run.metrics)),
            *missing_rows(run.missing),
            ("submitted", when(run.submitted_at)),
            ("started", when(run.started_at)),
            ("ended", when(run.ended_at)),
            ("nodes", _roster(run)),
        ]
    )


def _roster(run: Run) -> str:
    more = run.roster_size - MOST_NODES
    return ", ".join([*run.roster[:MOST_NODES], *([f"and {more} more"] if more > 0 else [])])


def run_views(run: Run, contributions: Sequence[Contribution], warnings: Sequence[str]) -> list[Any]:
    """One run, what nodes did in it, and the warnings of those that contributed to less than they were asked for."""
    nodes = contribution_table(contributions) if contributions else []
    return [run_details(run), nodes, safe_lines("\n".join(warnings))]


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
                safe_text(item.last_reason),
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
                safe_text(item.last_reason or (item.reason if item.state == "failed" else "")),
            )
            for item in rounds
        ],
    )


def outcome_of(item: Round) -> str:
    """What became of an asynchronous assignment: its verdict, once there was a decision."""
    if item.state == "failed":
        return next((name for name in SHORT if getattr(item, name)), "unfinished")
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
                safe_text(update.reason),
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
            ("sent twice", _resent(detail)),
            ("task's code", _code(detail)),
            *missing_rows(detail.round.missing),
            *(row for update in detail.updates for row in missing_rows(update.missing, f" of {update.node}")),
        ]
    )
    return [
        round_table([detail.round]),
        updates,
        progress_table(detail.nodes, detail.nodes_count) if detail.nodes else None,
        facts,
    ]


def _resent(detail: RoundDetail) -> str:
    """What went twice because transfers broke."""
    ways = (("of updates", detail.bytes_resent_up), ("of models", detail.bytes_resent_down))
    return ", ".join(f"{amount(count)} {what}" for what, count in ways if count)


def progress_table(nodes: Sequence[NodeProgress], count: int = 0) -> list[Any]:
    """What nodes of an open round do now, and since when; `count`: how many it has, if not all are given."""
    columns = [Column("NODE"), Column("DOES"), *(Column(name, right=True) for name in ("STEP", "LOSS", "IN", "OUT"))]
    return listing(
        [*columns, Column("SINCE")],
        [
            (
                node.node,
                state_text(node.phase),
                f"{node.step}/{node.steps}" if node.steps else "",
                f"{node.loss:.4f}" if node.steps and math.isfinite(node.loss) else "",
                amount(node.bytes_received) if node.bytes_received else "",
                amount(node.bytes_sent) if node.bytes_sent else "",
                when(node.since),
            )
            for node in nodes
        ],
    ) + ([Text(f"and {count - len(nodes)} more nodes")] if count > len(nodes) else [])


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
