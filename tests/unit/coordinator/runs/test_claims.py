"""A statement of a node's is bounded first, then checked, and read only after that."""

from __future__ import annotations

import pytest

from covey.coordinator.runs.claims import opened, run_named
from covey.errors import IdentityError, InvalidUpdate
from covey.wire.identities.signing import MAX_OFFERED_BYTES, SigningKey, UpdateStatement

KEY = SigningKey.generate()
OWN = KEY.key_id, KEY.public_bytes


def statement(key=KEY.key_id):
    return UpdateStatement(
        federation="f", run="r", round=1, node="n", key=key, base="b", parts=(), weight=1.0, metrics={}
    ).to_bytes()


def test_what_is_signed_with_the_present_key_is_read():
    raw = statement()
    assert opened(OWN, raw, KEY.sign(raw)).run == run_named(raw) == "r"


def test_what_is_not_signed_is_not_read():
    with pytest.raises(IdentityError, match="signature"):
        opened(OWN, b"[" * 1000, bytes(64))
    with pytest.raises(IdentityError, match="statement"):
        opened(OWN, b"[" * 1000, KEY.sign(b"[" * 1000))
    assert run_named(b"[" * 1000) == ""


def test_another_key_of_the_node_s_does_not_count():
    raw = statement("0" * 32)
    with pytest.raises(IdentityError, match="present key"):
        opened(OWN, raw, KEY.sign(raw))


def test_what_is_too_long_is_not_even_checked():
    raw = b" " * (MAX_OFFERED_BYTES + 1)
    with pytest.raises(InvalidUpdate, match="bytes"):
        opened(OWN, raw, b"")
    assert run_named(raw) == ""
