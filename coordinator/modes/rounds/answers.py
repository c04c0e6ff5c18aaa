"""A round's answers on their way to the worker, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from covey.coordinator.runs.evaluation import NodeMetrics, reported_loss
from covey.metrics import counted
from covey.parts import PartFile, collected, collected_name
from covey.storage.record.contract import UpdateRecord, VersionRecord
from covey.worker.jobs.aggregation import AggregateResult, AggregateRow, AnswerRow
from covey.worker.jobs.runs import Description

PathOf = Callable[[str], Path]
"""Where the file of a digest lies."""


def aggregate_rows(updates: Sequence[UpdateRecord], roster: Sequence[str], path_of: PathOf) -> tuple[AggregateRow, ...]:
    """What each node has sent in all phases, in roster order; weight and loss are those of its first answer."""
    by_node: dict[str, list[UpdateRecord]] = {}
    for update in sorted(updates, key=lambda each: each.phase):
        by_node.setdefault(update.node, []).append(update)
    return tuple(_row(by_node[node], path_of) for node in roster if node in by_node)


def _row(updates: Sequence[UpdateRecord], path_of: PathOf) -> AggregateRow:
    paths = {name: path for update in updates for name, path in _paths(update, path_of).items()}
    first = updates[0]
    return AggregateRow(first.node, first.weight, paths, reported_loss(cast(NodeMetrics, first.metrics)))


def _paths(update: UpdateRecord, path_of: PathOf) -> Mapping[str, Path]:
    return {part.name: path_of(part.artifact.digest) for part in update.parts}


def answer_rows(answers: Sequence[UpdateRecord], roster: Sequence[str], path_of: PathOf) -> tuple[AnswerRow, ...]:
    """All answers, for the method to look at: by phase, in roster order."""
    places = {node: place for place, node in enumerate(roster)}
    in_order = sorted((a for a in answers if a.node in places), key=lambda a: (a.phase, places[a.node]))
    return tuple(
        AnswerRow(
            answer.node,
            answer.phase,
            answer.verdict,
            answer.reason,
            answer.weight,
            {name: (total, count) for name, (total, count) in counted(cast(NodeMetrics, answer.metrics)).items()},
            _paths(answer, path_of),
        )
        for answer in in_order
    )


def judged(updates: Sequence[UpdateRecord], result: AggregateResult, rule_phase: int) -> list[UpdateRecord]:
    """The updates that were looked at, with their verdicts: all of a node's have the same.

    The share in the result is that of the update with the part under the rule, which nodes send in `rule_phase`.
    """
    verdicts = {verdict.node: verdict for verdict in result.verdicts}
    return [
        replace(
            update,
            verdict="accepted" if verdict.accepted else "rejected",
            reason=verdict.reason,
            share=verdict.share if update.phase == rule_phase else 0.0,
            numbers=dict(verdict.numbers),
        )
        for update in updates
        if (verdict := verdicts.get(update.node)) is not None
    ]


def collected_files(
    description: Description, base: VersionRecord, verdicts: Sequence[UpdateRecord]
) -> tuple[PartFile, ...]:
    """Of the parts that are collected, each node's newest accepted file: of this round, or as in the version before."""
    names = {part.name for part in collected(description.parts)}
    prefixes = tuple(collected_name(name, "") for name in names)
    files = {file.name: file for file in base.state if file.name.startswith(prefixes)} if names else {}
    for update in verdicts:
        for part in update.parts if update.verdict == "accepted" else ():
            if part.name in names:
                name = collected_name(part.name, update.node)
                files[name] = PartFile(name, part.codec, part.artifact)
    return tuple(files[name] for name in sorted(files))
