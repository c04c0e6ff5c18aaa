"""The message that asks a node to work: built from the record only, so that it can be sent again after any restart."""

from __future__ import annotations

from dataclasses import dataclass

from covey.artifact import Artifact, chunk_count
from covey.protos import coordinator_pb2 as pb
from covey.spec import RunSpec
from covey.storage.record.contract import RunRecord, VersionRecord
from covey.wire.artifacts import artifact_message


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
    """

    change: Artifact | None = None
    change_data: bytes = b""
    change_base: str = ""
    broadcast: bytes = b""
    settled: tuple[str, bool] = ("", False)
    node_state: tuple[str, ...] = ()


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
