"""What a node says of its update: opened, and compared with what its run wants.

It is bounded, then checked to be its own, and only then read; that is for a thread.
"""

from __future__ import annotations

import math

from covey import messages as msg
from covey.artifact import INLINE_BYTES, Artifact
from covey.coordinator.runs.active_run import ActiveRun
from covey.errors import Conflict, CoveyError, IdentityError, InvalidUpdate, LimitExceeded
from covey.storage.record.contract import PartRecord
from covey.wire.identities.signing import MAX_OFFERED_BYTES, UpdateStatement, verify

MAX_WEIGHT = 1e12


def opened(key: tuple[str, bytes], raw: bytes, signature: bytes) -> UpdateStatement:
    """A node's statement about its update.

    Args:
        key: Id and raw bytes of the node's present signing key.
        raw: The statement.
        signature: Made over it.

    Raises:
        InvalidUpdate: It is too long.
        IdentityError: It is not signed with this key, or it is no statement.
    """
    if len(raw) > MAX_OFFERED_BYTES:
        raise InvalidUpdate(f"a statement of {len(raw)} bytes; at most {MAX_OFFERED_BYTES} are accepted")
    key_id, public = key
    verify(public, raw, signature)
    try:
        statement = UpdateStatement.from_bytes(raw)
    except LimitExceeded as error:
        raise InvalidUpdate(str(error)) from error
    if statement.key != key_id:
        raise IdentityError("the statement does not name this node's present key")
    return statement


def run_named(raw: bytes) -> str:
    """The run that a statement names, whether it is signed or not; empty: it cannot be read."""
    if len(raw) > MAX_OFFERED_BYTES:
        return ""
    try:
        return UpdateStatement.from_bytes(raw).run
    except CoveyError:
        return ""


def claimed_parts(run: ActiveRun, statement: UpdateStatement, message: msg.UpdateOffer) -> tuple[PartRecord, ...]:
    """The parts of an update as they will be on record, compared with what the run wants of its node now.

    Raises:
        Conflict: It was trained from another version.
        InvalidUpdate: Its weight, its parts, or one of their sizes, layouts or codecs cannot be.
    """
    prepared, base = run.ready(), run.mode.base_of(statement.node, statement.round)
    if statement.base != base.model_sha256:
        raise Conflict("the update was trained from another version than this round's base")
    if not (0 < statement.weight <= MAX_WEIGHT and math.isfinite(statement.weight)):
        raise InvalidUpdate(f"the declared weight {statement.weight} is not in (0, {MAX_WEIGHT:g}]")
    expected = prepared.sent(statement.phase)
    names = [part.name for part in expected]
    if [part.name for part in statement.parts] != names or len(message.parts) != len(names):
        raise InvalidUpdate(f"the update must have exactly the parts {', '.join(names)}")
    records = []
    for part, stated, sent in zip(expected, statement.parts, message.parts, strict=True):
        artifact = sent.artifact
        _validate(artifact, part.size_bytes)
        wrong = stated.bytes != artifact.size_bytes or (part.exact and artifact.size_bytes != part.size_bytes)
        if wrong or stated.digest != artifact.digest or stated.layout != part.layout:
            raise InvalidUpdate(f"part {stated.name!r} does not have the run's layout and size")
        if len(sent.data) not in (0, artifact.size_bytes) or len(sent.data) > INLINE_BYTES:
            raise InvalidUpdate(f"part {stated.name!r} came along, but not whole, or it is too large for that")
        if stated.codec != part.codec or sent.codec != stated.codec or sent.name != stated.name:
            raise InvalidUpdate(f"part {stated.name!r} does not have the run's codec")
        records.append(PartRecord(stated.name, stated.codec, artifact))
    return tuple(records)


def _validate(artifact: Artifact, size_bytes: int) -> None:
    try:
        artifact.validate(size_bytes)
    except LimitExceeded as error:
        raise InvalidUpdate(str(error)) from error
