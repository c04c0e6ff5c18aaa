"""The message that asks a node to work: built from the record only, so that it can be sent again after any restart."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from covey import messages as msg
from covey.artifact import INLINE_BYTES, Artifact, chunk_count
from covey.coordinator.runs.layouts import MAX_TABLES_BYTES, layout_file
from covey.machines.evaluation import is_due
from covey.messages import InputFile, WantedPart
from covey.parts import COLLECT, DeclaredPart, brought, collected_name, sent, slot
from covey.spec import RunSpec
from covey.storage.record.contract import RunRecord, VersionRecord
from covey.worker.jobs.runs import Description

NO_FEEDBACK = msg.Feedback()


def is_small(artifact: Artifact) -> bool:
    """Whether a transfer fits one chunk: it needs no grant and holds no slot."""
    return chunk_count(artifact.size_bytes) <= 1


@dataclass(frozen=True)
class AssignmentInputs:
    """What some runs' assignments carry beside the model.

    Attributes:
        change: The committed change from the version before.
        broadcast: What the codec said of the last round.
        feedback: On the node's newest update that was decided on.
        node_state: What the run's nodes keep from update to update.
        inputs: The files that the node gets beside the model.
        wanted: The parts that it is to send, and in phase 1 those that it makes and holds back.
        phase: Of the round.
        params: JSON of the method's own.
        participants: How many nodes take part in the round.
    """

    change: msg.Change | None = None
    broadcast: bytes = b""
    feedback: msg.Feedback = NO_FEEDBACK
    node_state: tuple[str, ...] = ()
    inputs: tuple[InputFile, ...] = ()
    wanted: tuple[WantedPart, ...] = ()
    phase: int = 1
    params: str = ""
    participants: int = 0


def wanted_parts(description: Description, phase: int = 1) -> tuple[WantedPart, ...]:
    """What a node is to send in a phase of a round; in the first, also what it is to hold back for later ones."""
    later = range(2, description.phases + 1) if phase == 1 else ()
    return tuple(
        WantedPart(part.name, part.codec, part.size_bytes, part.exact, up if up > phase else 0)
        for up in (phase, *later)
        for part in sent(description.parts, up)
    )


def method_files(
    description: Description, version: VersionRecord, node: str, phase: int = 1
) -> list[tuple[str, str, Artifact]]:
    """The files of a version that a node gets beside the model, by part and source; version 0 has none yet."""
    return [
        (part.name, source, artifact)
        for part in brought(description.parts, phase)
        for source, artifact in _files_of(part, version, node)
    ]


def _files_of(part: DeclaredPart, version: VersionRecord, node: str) -> list[tuple[str, Artifact]]:
    state = {file.name: file.artifact for file in version.state}
    if part.combine != COLLECT:
        return [("", state[slot(part.name)])] if slot(part.name) in state else []
    prefix = collected_name(part.name, "")
    sources = {name.removeprefix(prefix): artifact for name, artifact in state.items() if name.startswith(prefix)}
    wanted = {"own": {node}, "others": set(sources) - {node}}.get(part.audience, set(sources))
    return [(source, artifact) for source, artifact in sources.items() if source in wanted]


def input_files(
    description: Description, version: VersionRecord, node: str, read: Callable[[Artifact], bytes], phase: int = 1
) -> tuple[InputFile, ...]:
    """The same as they go into an assignment; `read` gives the content of a small file.

    Other nodes' files are downloaded: there may be many. Their chunk digests come along as long as they are few.
    """
    files = method_files(description, version, node, phase)
    has_tables = sum(len(artifact.chunk_sha256) for _, source, artifact in files if source) <= MAX_TABLES_BYTES
    return tuple(
        InputFile(name, source, artifact if has_tables or not source else replace(artifact, chunk_sha256=b""))
        if source or artifact.size_bytes > INLINE_BYTES
        else InputFile(name, source, artifact, read(artifact))
        for name, source, artifact in files
    )


def evaluates_first(spec: RunSpec, base: VersionRecord) -> bool:
    """Whether nodes evaluate a round's base model before they train."""
    return spec.evaluation.where != "central" and is_due(base.version, spec.evaluation.every)


def free_part(roster: Sequence[str], parts: int, present: Collection[str], node: str) -> int:
    """Which part of experiment data a node has that came when all were dealt: one whose node is not there.

    It follows from the record of a round, and stays what it is within an attempt: a node that is lost then is not
    invited to the next attempt, in which its part is free.

    Newcomers take them in the roster's order. -1: the part of the node's place in the roster, if there is one.

    Args:
        roster: The run's nodes in the order of their first round.
        parts: Into how many parts the data are cut.
        present: The nodes that were invited.
        node: One of them.
    """
    if roster.index(node) < parts:
        return -1
    free = [part for part, owner in enumerate(roster[:parts]) if owner not in present]
    newcomers = [node for node in roster[parts:] if node in present]
    place = newcomers.index(node) if node in newcomers else len(free)
    return free[place] if place < len(free) else -1


def assignment(
    run: RunRecord,
    base: VersionRecord,
    data: bytes,
    roster_index: int,
    number: int,
    attempt: int,
    inputs: AssignmentInputs = AssignmentInputs(),
    *,
    evaluate: bool = False,
    part: int = -1,
) -> msg.Assignment:
    """Train for round `number` from version `base`, whose file is `data` if it is small enough to come along."""
    file = layout_file(run.layout)
    return msg.Assignment(
        run=run.run,
        round=number,
        attempt=attempt,
        work="train",
        spec=run.spec,
        layout="" if file else run.layout,
        layout_file=file,
        version=base.version,
        model_sha256=base.model_sha256,
        model=base.artifact,
        roster_index=roster_index,
        num_partitions=run.parts,
        download_granted=is_small(base.artifact),
        evaluate=evaluate,
        model_data=data,
        change=inputs.change,
        broadcast=inputs.broadcast,
        feedback=inputs.feedback,
        node_state=inputs.node_state,
        inputs=inputs.inputs,
        wanted=inputs.wanted,
        phase=inputs.phase,
        params=inputs.params,
        part=part,
        participants=inputs.participants,
    )


def evaluation_assignment(
    run: RunRecord, base: VersionRecord, data: bytes, roster_index: int, inputs: AssignmentInputs = AssignmentInputs()
) -> msg.Assignment:
    """Evaluate version `base` only."""
    inputs = AssignmentInputs(change=inputs.change)
    return replace(assignment(run, base, data, roster_index, base.version, 0, inputs), work="evaluate")
