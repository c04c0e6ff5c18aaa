"""The message that asks a node to work: built from the record only, so that it can be sent again after any restart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from covey.artifact import INLINE_BYTES, Artifact, chunk_count
from covey.messages import InputFile, WantedPart
from covey.parts import brought, sent, slot
from covey.protos import coordinator_pb2 as pb
from covey.spec import RunSpec
from covey.storage.record.contract import RunRecord, VersionRecord
from covey.wire.artifacts import artifact_message
from covey.wire.translation import input_message
from covey.worker.jobs.runs import Description


def is_small(artifact: Artifact) -> bool:
    """Whether a transfer fits one chunk: it needs no grant and holds no slot."""
    return chunk_count(artifact.size_bytes) <= 1


@dataclass(frozen=True)
class Extras:
    """What some runs' assignments carry beside the model.

    Attributes:
        change: The file of the committed change from the version before.
        change_data: That file itself, if it is small.
        change_base: Digest of the file of the version before.
        broadcast: What the codec said of the last round.
        settled: The node's newest update that was decided on, and whether it was accepted.
        node_state: What the run's nodes keep from update to update.
        inputs: The files that the node gets beside the model.
        wanted: The parts that it is to send.
    """

    change: Artifact | None = None
    change_data: bytes = b""
    change_base: str = ""
    broadcast: bytes = b""
    settled: tuple[str, bool] = ("", False)
    node_state: tuple[str, ...] = ()
    inputs: tuple[InputFile, ...] = ()
    wanted: tuple[WantedPart, ...] = ()


def wanted_parts(description: Description, phase: int = 1) -> tuple[WantedPart, ...]:
    """What a node is to send in a phase of a round."""
    parts = sent(description.parts, phase)
    return tuple(WantedPart(part.name, part.codec, part.size_bytes, part.exact) for part in parts)


def method_files(description: Description, version: VersionRecord, phase: int = 1) -> dict[str, Artifact]:
    """The files of a version that a node gets beside the model, by part; those of version 0 are yet to be made."""
    state = {file.name: file.artifact for file in version.state}
    names = [part.name for part in brought(description.parts, phase)]
    return {name: state[slot(name)] for name in names if slot(name) in state}


def input_files(
    description: Description, version: VersionRecord, read: Callable[[Artifact], bytes], phase: int = 1
) -> tuple[InputFile, ...]:
    """The same as they go into an assignment; `read` gives the content of a small file."""
    return tuple(
        InputFile(name, "", artifact, read(artifact) if artifact.size_bytes <= INLINE_BYTES else b"")
        for name, artifact in method_files(description, version, phase).items()
    )


def assignment(
    run: RunRecord,
    spec: RunSpec,
    base: VersionRecord,
    data: bytes,
    roster_index: int,
    number: int,
    attempt: int,
    extras: Extras = Extras(),
) -> pb.Assignment:
    """Train for round `number` from version `base`, whose file is `data` if it is small enough to come along."""
    every = spec.evaluation.every
    evaluate = base.version > 0 and bool(every) and base.version % every == 0 and spec.evaluation.where != "central"
    message = _message(run, base, data, roster_index)
    message.work = pb.Assignment.TRAIN
    message.round, message.attempt, message.evaluate = number, attempt, evaluate
    message.broadcast = extras.broadcast
    message.settled, message.settled_accepted = extras.settled
    message.node_state.extend(extras.node_state)
    message.inputs.extend(map(input_message, extras.inputs))
    message.wanted.extend(pb.WantedPart(**vars(part)) for part in extras.wanted)
    _add_change(message, extras)
    return message


def evaluation_assignment(
    run: RunRecord, base: VersionRecord, data: bytes, roster_index: int, extras: Extras = Extras()
) -> pb.Assignment:
    """Evaluate version `base` only."""
    message = _message(run, base, data, roster_index)
    message.work = pb.Assignment.EVALUATE
    message.round = base.version
    _add_change(message, extras)
    return message


def _add_change(message: pb.Assignment, extras: Extras) -> None:
    if extras.change is not None:
        message.change.CopyFrom(artifact_message(extras.change))
        message.change_data, message.change_base = extras.change_data, extras.change_base


def _message(run: RunRecord, base: VersionRecord, data: bytes, roster_index: int) -> pb.Assignment:
    return pb.Assignment(
        model_data=data,
        phase=1,
        run=run.run,
        spec=run.spec.encode(),
        layout=run.layout.encode(),
        version=base.version,
        model_sha256=base.model_sha256,
        model=artifact_message(base.artifact),
        roster_index=roster_index,
        num_partitions=run.parts,
        download_granted=is_small(base.artifact),
    )
