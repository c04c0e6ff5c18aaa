"""A round's answers on their way to the worker, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from covey.artifact import Artifact
from covey.coordinator.runs.steps.evaluation import NodeMetrics, reported_loss
from covey.metrics import counted
from covey.parts import PartFile, collected, collected_name
from covey.storage.record.contract import UpdateRecord, VersionRecord
from covey.worker.jobs.runs import Description
from covey.worker.jobs.steps import StepAnswer, StepResult

PathOf = Callable[[str], Path]
"""Where the file of a digest lies."""


def step_answers(
    answers: Sequence[UpdateRecord], roster: Sequence[str], path_of: PathOf, *, for_method: bool
) -> tuple[StepAnswer, ...]:
    """A round's answers for the worker, by phase and in roster order.

    A method with phases looks at all of them (`for_method`), with what nodes reported; else only updates are named.
    """
    places = {node: place for place, node in enumerate(roster)}
    wanted = (a for a in answers if a.node in places and (for_method or a.verdict == "received"))
    return tuple(
        _answer(answer, path_of, for_method=for_method)
        for answer in sorted(wanted, key=lambda answer: (answer.phase, places[answer.node]))
    )


def _answer(answer: UpdateRecord, path_of: PathOf, *, for_method: bool) -> StepAnswer:
    paths = {part.name: path_of(part.artifact.digest) for part in answer.parts}
    loss = reported_loss(cast(NodeMetrics, answer.metrics))
    if not for_method:
        return StepAnswer(answer.node, answer.weight, paths, loss)
    return StepAnswer(
        answer.node,
        answer.weight,
        paths,
        loss,
        phase=answer.phase,
        verdict=answer.verdict,
        reason=answer.reason,
        metrics={name: (total, count) for name, (total, count) in counted(cast(NodeMetrics, answer.metrics)).items()},
    )


def judged(updates: Sequence[UpdateRecord], result: StepResult, rule_phase: int) -> list[UpdateRecord]:
    """The updates that were looked at, with their verdicts: all of a node's have the same.

    The share in the result is that of the update with the part under the rule, which nodes send in `rule_phase`.
    """
    verdicts = {verdict.node: verdict for verdict in result.verdicts}
    return [
        replace(
            update,
            verdict=verdict.verdict,
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


def state_file(version: VersionRecord, name: str) -> Artifact | None:
    """A file that a version has beside the model."""
    return next((part.artifact for part in version.state if part.name == name), None)
