"""A run on the screen of a terminal: what the page shows of it, within 80 columns, and to be read without colours."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

from rich.text import Text

from covey.cli.views import gossip_tables, tables
from covey.cli.views.listing import Column, listing, pairs, safe_text
from covey.client.progress.history import History
from covey.client.progress.limits import PrivacySpent, distances_of, privacy_of
from covey.client.progress.nodes import RunNodes
from covey.client.reading.gossip_parts import GossipView
from covey.client.values import Contribution, NodeProgress, NodeWork, Round, Run
from covey.machines.stopping import Distance

MARKS = {
    "accepted": "+",
    "received": "=",
    "held": "h",
    "rejected": "x",
    "declined": "-",
    "late": "~",
    "lost": "!",
    "away": "!",
    "downloading": "v",
    "training": "*",
    "uploading": "^",
}
"""A verdict, or what a node does, as one character: colours say the same once more."""
WAITS = "."
"""What is invited, or queued, or not known."""
ANSWERS = ("accepted", "received", "rejected", "declined", "lost", "late")
"""Counts of a round."""
BAR, SPARK, LABEL = 16, 32, 20
"""Columns."""
BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.:-=+*#"
SHOWN_ROUNDS, LEAST_ROUNDS = 12, 3
LEAST_NODES = 2
MOST_NAMES = 8
BETWEEN = 8
"""Lines of headings and of empty space."""


@dataclass(frozen=True)
class Seen:
    """What is known of a run at a moment."""

    run: Run
    history: History
    rounds: Sequence[Round] = ()
    """The newest ones, in order."""
    progress: Sequence[NodeProgress] = ()
    progress_count: int = 0
    nodes: RunNodes = field(default_factory=RunNodes)
    trouble: Sequence[str] = ()
    """What could not be read, and why."""


def frame(seen: Seen, now: float, height: int, *, ascii_only: bool = False) -> list[Any]:
    """The screen.

    Args:
        seen: What is known.
        now: In Unix seconds.
        height: Lines of the screen: of many nodes and rounds it shows as many as fit, about.
        ascii_only: Draw curves without block characters.
    """
    facts = pairs(_facts(seen, now, ascii_only=ascii_only))
    taken = len(facts.plain.splitlines()) + len(seen.trouble) + BETWEEN
    free = max(LEAST_NODES + LEAST_ROUNDS, height - taken)
    rows = _rows(seen)
    shown, lines = _fitting_rows(rows, free // 2)
    rounds = [_without_reason(item, seen.nodes) for item in seen.rounds]
    rounds = rounds[-min(SHOWN_ROUNDS, max(LEAST_ROUNDS, free - lines)) :]
    trouble = [Text(safe_text(text).plain, style="yellow") for text in seen.trouble]
    parts: list[Any] = [run_line(seen.run), *trouble, *([facts] if facts else [])]
    if seen.nodes.gossip is not None:
        parts += _gossip(seen.nodes.gossip, free, is_ended=seen.run.ended)
    elif shown:
        count, reasons = max(len(rows), seen.progress_count), lines - len(shown)
        table = _fitting(lambda whole: _node_table(shown, seen.nodes, now, whole=whole), reasons)
        for below in table[1:] if not seen.run.ended else ():
            below.no_wrap, below.overflow = True, "ellipsis"
        parts += ["", *table, *_more(count - len(shown)), *_legend(seen.nodes, shown)]
    if rounds:
        names = tables.main_metrics(seen.history.names())
        reasons = sum(bool(item.last_reason) for item in rounds)
        parts += ["", *_fitting(lambda whole: tables.round_table(rounds, names if whole else ()), reasons)]
    return parts


def _gossip(view: GossipView, most: int, *, is_ended: bool) -> list[Any]:
    """What the nodes of a gossip run stated, and the account of mass."""
    some = replace(view, parts=view.parts[: max(LEAST_NODES, most)])
    return ["", *gossip_tables.parts(some, is_ended=is_ended), *_more(len(view.parts) - len(some.parts))]


def _fitting_rows(rows: Sequence[Row], most: int) -> tuple[Sequence[Row], int]:
    """The first nodes whose rows, and reasons below them, take so many lines, or a few all the same; how many lines."""
    lines = list(accumulate(1 + bool(item.last_round) for _, _, item in rows))
    count = max(min(LEAST_NODES, len(rows)), sum(end <= most for end in lines))
    return rows[:count], lines[count - 1] if count else 0


def _without_reason(item: Round, nodes: RunNodes) -> Round:
    """A round without the reason of an answer where the table of nodes says it, unless it failed."""
    return replace(item, last_reason="") if nodes.contributions and item.state != "failed" else item


def run_line(run: Run) -> Text:
    """A run and how far it is, on one line."""
    done, whole, what = tables.done_of(run)
    line = Text.assemble((safe_text(run.full_name).plain, "bold"), f" ({run.run})  ", tables.state_text(run.state))
    return line.append(f"  round {done} of {whole}" if run.unit == "rounds" else f"  {done} of {whole} {what}")


def _facts(seen: Seen, now: float, *, ascii_only: bool) -> list[tuple[str, Any]]:
    run = seen.run
    blocks = ASCII_BLOCKS if ascii_only else BLOCKS
    rows: list[tuple[str, Any]] = [("why", run.reason)]
    drawn = tables.main_metrics(seen.history.names())
    rows += [(_label(name), _curve(seen.history, name, blocks)) for name in drawn]
    rows += [(_label(name), reason) for name, reason in tables.missing_rows(run.missing)]
    rows.append(("privacy", _privacy(privacy_of(run))))
    if not run.ended:
        rows += [("stops at", _distance(distance)) for distance in distances_of(run, seen.history, now)]
        rows += _open_round(seen)
        rows.append(("not connected", _away(seen.nodes)))
    return rows


def _label(name: str) -> str:
    """The name of a metric, at the left of its curve."""
    text = safe_text(name).plain
    return text if len(text) <= LABEL else text[: LABEL - 3] + "..."


def _curve(history: History, name: str, blocks: str) -> str:
    _, ys = history.curve(name, "rounds", 0.0, SPARK)
    low, high = min(ys), max(ys)
    span = f", from {tables.number(low)} to {tables.number(high)}" if high > low else ""
    return f"{sparkline(ys, blocks)}  {tables.number(ys[-1])}{span}"


def sparkline(values: Sequence[float], blocks: str = BLOCKS) -> str:
    """Numbers as one character each, from the lowest to the highest block."""
    low, high = min(values), max(values)
    if not high > low:
        return blocks[len(blocks) // 2] * len(values)
    return "".join(blocks[min(len(blocks) - 1, int((value - low) / (high - low) * len(blocks)))] for value in values)


def _privacy(spent: PrivacySpent | None) -> str:
    if spent is None:
        return ""
    if spent.epsilon is None:
        return "no version has spent any yet"
    budget = f" of {spent.budget:g}" if spent.budget else ""
    delta = f", delta {spent.delta:g}" if spent.delta is not None else ""
    kind = " (simulated: nobody is protected)" if spent.simulated else ""
    return f"epsilon {spent.epsilon:.4g}{budget} spent{delta}{kind}"


def _distance(distance: Distance) -> str:
    """A rule of `[stop]`, and how far it is."""
    at, limit = distance.at, distance.limit
    if distance.rule == "target":
        return f"target {limit:g}: " + ("no value yet" if at is None else f"{tables.number(at)} at best")
    if distance.rule == "patience":
        return f"{limit:.0f} evaluations in a row that are no better: {at or 0:.0f} so far"
    if distance.rule == "bytes":
        return f"{tables.amount(int(limit))} of updates: {tables.amount(int(at or 0))} so far"
    return f"{tables.span(limit)} since its start: {tables.span(max(0.0, at or 0.0))} so far"


def _open_round(seen: Seen) -> list[tuple[str, Any]]:
    """How the answers of the open round stand; of runs that have none such, what the nodes do."""
    phases = Counter(item.phase for item in seen.progress if item.phase not in ANSWERS)
    opened = next((item for item in reversed(seen.rounds) if item.state in ("collecting", "aggregating")), None)
    if seen.run.unit == "rounds" and opened is not None:
        counts = [(name, getattr(opened, name)) for name in ANSWERS]
        return [(f"round {opened.round}", bar([*counts, *sorted(phases.items())], len(opened.invited)) or "")]
    return [("nodes", bar(sorted(phases.items()), seen.progress_count) or "")]


def bar(counts: Iterable[tuple[str, int]], whole: int = 0) -> Text:
    """Counts side by side as one bar, each in its own mark, and in words; empty: nothing is counted.

    Args:
        counts: Names with how many.
        whole: How many there are in all, with those that are not counted.
    """
    shown = [(name, count) for name, count in counts if count > 0]
    whole = max(whole, sum(count for _, count in shown))
    if not shown:
        return Text()
    columns = [max(1, BAR * count // whole) for _, count in shown]
    while sum(columns) > BAR:
        columns[columns.index(max(columns))] -= 1
    line, words = Text("["), Text("]")
    for (name, count), width in zip(shown, columns, strict=True):
        style = tables.STYLES.get(name, "")
        line.append(_mark(name) * width, style=style)
        words.append(f"  {_mark(name)} {count} {safe_text(name).plain}", style=style)
    return line.append(WAITS * (BAR - sum(columns))).append_text(words).append(f" of {whole}")


def _mark(name: str) -> str:
    return MARKS.get(name, WAITS)


def _away(nodes: RunNodes) -> str:
    names = [f"{node.node} ({node.state})" for node in nodes.away[:MOST_NAMES]]
    more = nodes.away_count - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


Row = tuple[str, NodeProgress | NodeWork | None, Contribution]


def _rows(seen: Seen) -> list[Row]:
    """A row a node: what it does now, and what it contributed; those that do something come first."""
    now: dict[str, NodeProgress | NodeWork] = {}
    if not seen.run.ended:
        now = {node.node: work for node, work in seen.nodes.at_work} | {item.node: item for item in seen.progress}
    contributed = {item.node: item for item in seen.nodes.contributions}
    names = dict.fromkeys([*sorted(now), *contributed])
    return [(name, now.get(name), contributed.get(name, Contribution(name))) for name in names]


def _fitting(make: Callable[[bool], list[Any]], reasons: int) -> list[Any]:
    """A table as a whole where it fits, else without what would stand below it, a line for each row.

    Args:
        make: Makes it, as a whole or not.
        reasons: Lines that stand below it in any case.
    """
    whole = make(True)
    return whole if sum(len(part.plain.splitlines()) for part in whole[1:]) <= reasons else make(False)


def _node_table(rows: Sequence[Row], nodes: RunNodes, now: float, *, whole: bool) -> list[Any]:
    columns = [Column("NODE"), Column("DRILL"), Column("DOES"), Column("STEP", right=True), Column("SPEED", right=True)]
    columns += [Column("FOR", right=True), Column("COUNTED", right=True), Column("LAST")]
    columns += [Column(name, right=True, below="narrow") for name in ("LOSS", "IN", "OUT")[: 3 if whole else 1]]
    return listing(
        [*columns, Column("NOT COUNTED", below="always")],
        [
            (
                name,
                tables.adversary_text(nodes.drills.get(name, "")),
                *_doing(work, now),
                f"{item.accepted} of {item.asked}" if item.asked else "",
                _strip(nodes.verdicts.get(name, ())),
                *_amounts(work)[: 3 if whole else 1],
                f"round {item.last_round} {item.last_verdict}: {item.last_reason}" if item.last_round else "",
            )
            for name, work, item in rows
        ],
    )


def _doing(work: NodeProgress | NodeWork | None, now: float) -> tuple[Text | str, ...]:
    """What a node does, how far it is, how fast, and for how long."""
    if work is None:
        return "", "", "", ""
    seconds = max(0.0, now - work.since) if work.since else 0.0
    is_measured = work.phase == "training" and work.step and seconds > 0.5
    return (
        tables.state_text(work.phase),
        f"{work.step}/{work.steps}" if work.steps else "",
        f"{work.step / seconds:.3g}/s" if is_measured else "",
        tables.span(seconds) if work.since else "",
    )


def _amounts(work: NodeProgress | NodeWork | None) -> tuple[str, str, str]:
    """Its loss, and the bytes that came from it and went to it."""
    if work is None:
        return "", "", ""
    loss = work.loss if isinstance(work, NodeProgress) and work.phase == "training" and work.step else math.nan
    received, sent = (tables.amount(count) if count else "" for count in (work.bytes_received, work.bytes_sent))
    return tables.number(loss) if math.isfinite(loss) else "", received, sent


def _strip(verdicts: Sequence[tuple[int, str]]) -> Text:
    """A node's last answers, the newest at the right."""
    return Text.assemble(*((_mark(verdict), tables.STYLES.get(verdict, "")) for _, verdict in verdicts))


def _legend(nodes: RunNodes, rows: Sequence[Row]) -> list[Text]:
    """What the marks of the last answers stand for."""
    known = {verdict for name, *_ in rows for _, verdict in nodes.verdicts.get(name, ())}
    marks = "  ".join(f"{mark} {name}" for name, mark in MARKS.items() if name in known)
    return [Text(f"LAST: {marks}")] if marks else []


def _more(count: int) -> list[Text]:
    return [Text(f"and {count} more nodes: covey node list")] if count > 0 else []
