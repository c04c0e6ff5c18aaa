"""How often nodes contributed, and why not, in SQL: counted in an index, a round once however many phases it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, bindparam, func, select, tuple_

from covey.storage.record.contract import ContributionRecord
from covey.storage.sql.schema import assignments, runs

SHORTFALL = ("rejected", "declined", "lost", "late")
"""Verdicts of answers that are no update that counts."""
_BATCH = 500
"""Nodes, or rounds, of one statement."""
_NODES = assignments.c.node.in_(bindparam("b_nodes", expanding=True))
_OF_RUN = assignments.c.run == bindparam("b_run")
_ANSWERS = select(assignments.c.node, assignments.c.run, assignments.c.group_number, assignments.c.verdict).distinct()


def _counted(answers: Select[Any]) -> Select[Any]:
    """Node, run and verdict to how many rounds, and the newest of them."""
    each = answers.subquery()
    return (
        select(
            each.c.node, each.c.run, each.c.verdict, func.count(), func.max(each.c.group_number), runs.c.submitted_at
        )
        .join(runs, runs.c.run == each.c.run)
        .group_by(each.c.node, each.c.run, each.c.verdict, runs.c.submitted_at)
    )


_OF_ALL_RUNS = _counted(_ANSWERS.where(_NODES))
_OF_ONE_RUN = _counted(_ANSWERS.where(_NODES, _OF_RUN))
_ASKED = (
    select(assignments.c.node, func.count(assignments.c.group_number.distinct()))
    .where(_NODES, _OF_RUN)
    .group_by(assignments.c.node)
)
_REASONS = select(assignments.c.node, assignments.c.run, assignments.c.verdict, assignments.c.reason).where(
    tuple_(assignments.c.run, assignments.c.group_number, assignments.c.node).in_(
        bindparam("b_answers", expanding=True)
    ),
    assignments.c.verdict.in_(SHORTFALL),
)
_NEWEST_REASONS = (
    select(assignments.c.group_number, assignments.c.node, assignments.c.verdict, assignments.c.reason)
    .where(
        _OF_RUN,
        assignments.c.group_number.in_(bindparam("b_rounds", expanding=True)),
        assignments.c.verdict.in_(SHORTFALL),
    )
    .order_by(assignments.c.received_at, assignments.c.node)
)


B = TypeVar("B")


@dataclass
class Tally:
    """What one node did."""

    counts: Counter[str] = field(default_factory=Counter)
    """Verdict to rounds."""
    asked: int = 0
    newest: tuple[float, str, int] | None = None
    """The newest round without an update that counts: submission of its run, the run, and its number."""
    verdict: str = ""
    reason: str = ""

    @property
    def of_node(self) -> dict[str, Any]:
        """As fields of a `NodeRecord`."""
        counts = {name: self.counts[name] for name in ("accepted", *SHORTFALL)}
        run, number = (self.newest or (0.0, "", 0))[1:]
        words = f"run {run}, round {number}: {self.verdict}: {self.reason}" if self.newest else ""
        return counts | {"last_reason": words}

    def contribution(self, node: str) -> ContributionRecord:
        """As a record."""
        counts = {name: self.counts[name] for name in ("accepted", *SHORTFALL)}
        number = self.newest[2] if self.newest else 0
        return ContributionRecord(
            node, self.asked, **counts, last_round=number, last_verdict=self.verdict, last_reason=self.reason
        )


def tallies(connection: Connection, nodes: Sequence[str], run: str = "") -> dict[str, Tally]:
    """What these nodes did, in one run or (without `asked`) in all."""
    tallies = {node: Tally() for node in nodes}
    for names in _batches(list(tallies)):
        _count(connection, tallies, names, run)
        _explain(connection, tallies, names)
    return tallies


def _count(connection: Connection, tallies: dict[str, Tally], names: Sequence[str], run: str) -> None:
    asked = {"b_nodes": list(names)} | ({"b_run": run} if run else {})
    rows = connection.execute(_OF_ONE_RUN if run else _OF_ALL_RUNS, asked)
    for node, in_run, verdict, count, number, submitted_at in rows:
        tally = tallies[node]
        tally.counts[verdict] += count
        if verdict in SHORTFALL:
            tally.newest = max(tally.newest or (-1.0, "", 0), (submitted_at, in_run, number))
    for node, count in connection.execute(_ASKED, asked) if run else ():
        tallies[node].asked = count


def _explain(connection: Connection, tallies: dict[str, Tally], names: Iterable[str]) -> None:
    """Look up why the newest ones did not count."""
    wanted = [(newest[1], newest[2], node) for node in names if (newest := tallies[node].newest) is not None]
    for node, _, verdict, reason in connection.execute(_REASONS, {"b_answers": wanted}) if wanted else ():
        tallies[node].verdict, tallies[node].reason = verdict, reason


def last_reasons(connection: Connection, run: str, rounds: Iterable[int]) -> dict[int, str]:
    """Round to its newest answer that is no update that counts, in words."""
    return dict(_reasons(connection, run, rounds))


def _reasons(connection: Connection, run: str, rounds: Iterable[int]) -> Iterator[tuple[int, str]]:
    for numbers in _batches(list(rounds)):
        for number, node, verdict, reason in connection.execute(
            _NEWEST_REASONS, {"b_run": run, "b_rounds": list(numbers)}
        ):
            yield number, f"{node} {verdict}: {reason}"


def _batches(items: list[B]) -> Iterator[list[B]]:
    return (items[start : start + _BATCH] for start in range(0, len(items), _BATCH))
