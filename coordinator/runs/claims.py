"""What a node says of its update, opened: bounded, then checked to be its own, and only then read. For a thread."""

from __future__ import annotations

from covey.errors import CoveyError, IdentityError, InvalidUpdate, LimitExceeded
from covey.wire.identities.signing import MAX_OFFERED_BYTES, UpdateStatement, verify


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
