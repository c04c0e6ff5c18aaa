"""What is signed, and how: canonical statements under a domain tag, with Ed25519.

The exact bytes of a statement are what is sent, signed, stored and checked; nobody makes them a second time.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AfterValidator, FailFast, Field, TypeAdapter, with_config

from covey.errors import IdentityError, LimitExceeded
from covey.metrics import MAX_REASON as MAX_METRIC_REASON
from covey.metrics import counted, missing
from covey.wire.identities.canonical import (
    MAX_BYTES,
    STRICT,
    Count,
    Finite,
    Text,
    canonical_json,
    printable,
    read_canonical,
)

__all__ = [
    "CommitStatement",
    "CommitVerdict",
    "PartStatement",
    "ReceiptStatement",
    "SigningKey",
    "UpdateStatement",
    "canonical_json",
    "key_id",
    "verify",
]

DOMAIN = b"covey/statement/1\n"
"""What is signed begins with it, so that no signature made for another purpose passes for a statement's."""
MAX_STATEMENT_BYTES = 1 << 20
MAX_OFFERED_BYTES = 64 << 10
"""Of an update's statement when it is offered: 16 parts and 200 metrics with names of usual length."""
MAX_COMMIT_BYTES = 1 << 26
MAX_PARTS = 16
MAX_METRICS = 200
MAX_NODES = 100_000
MAX_STATE = 100 + MAX_NODES
MAX_REASON = 10_000
MAX_ROUND = 1 << 40
MAX_PHASE = 100


def key_id(public_key: bytes) -> str:
    """A signing key's name: the first 16 bytes (hex) of the SHA-256 of its raw bytes.

    Fewer would let one node make two keys of the same name, and deny what it signed with the other.
    """
    return hashlib.sha256(public_key).hexdigest()[:32]


class SigningKey:
    """An Ed25519 private key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public_bytes = private.public_key().public_bytes_raw()
        self.key_id = key_id(self.public_bytes)

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key."""
        return cls(Ed25519PrivateKey.generate())

    def sign(self, statement: bytes, domain: bytes = DOMAIN) -> bytes:
        """Sign a statement's exact bytes."""
        return self._private.sign(domain + statement)


def verify(public_key: bytes, statement: bytes, signature: bytes, domain: bytes = DOMAIN) -> None:
    """Check a signature.

    Raises:
        IdentityError: It is not this key's signature over these bytes.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, domain + statement)
    except (InvalidSignature, ValueError) as error:
        raise IdentityError("the signature does not belong to this statement and key") from error


@with_config(STRICT)
@dataclass(frozen=True)
class PartStatement:
    """One part of an update, as its node signs it."""

    name: Text
    codec: Text
    options: Mapping[str, Any]
    layout: Text
    digest: Text
    bytes: Annotated[int, Field(ge=0, lt=MAX_BYTES)]


MissingReason = Annotated[str, Field(min_length=1, max_length=MAX_METRIC_REASON), AfterValidator(printable)]


@with_config(STRICT)
@dataclass(frozen=True)
class UpdateStatement:
    """What a node says of its update. Its bounds are those of what is read; `to_bytes` says what cannot be signed."""

    federation: Text
    run: Text
    round: Count
    node: Text
    key: Text
    base: Text
    parts: Annotated[tuple[PartStatement, ...], Field(max_length=MAX_PARTS), FailFast()]
    weight: Finite
    metrics: Annotated[Mapping[Text, tuple[Finite, Finite] | MissingReason], Field(max_length=MAX_METRICS)]
    """(total, count) by name, or a text: why the metric is missing."""
    phase: Annotated[int, Field(ge=1, le=MAX_PHASE)] = 1
    """Of the round."""
    code: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    """SHA-256 (hex) of the task's code that trained; empty: not said."""
    notice: Annotated[str, Field(max_length=MAX_METRIC_REASON), AfterValidator(printable)] = ""
    """What went wrong on the node, in words, though it could train; empty: nothing."""
    covey: Literal["update/1"] = field(default="update/1", kw_only=True, repr=False)

    def to_bytes(self) -> bytes:
        """The statement's canonical bytes; a phase of 1, and an empty `code` or `notice`, are left out.

        Raises:
            LimitExceeded: The weight or a metric is not a finite number.
        """
        for name, pair in (("the weight", (self.weight,)), *counted(self.metrics).items()):
            if not all(map(math.isfinite, pair)):
                raise LimitExceeded(f"{name} is not a finite number: the training has diverged")
        pairs = {name: [float(total), float(count)] for name, (total, count) in counted(self.metrics).items()}
        metrics = pairs | missing(self.metrics)
        parts = [vars(part) | {"options": dict(part.options)} for part in self.parts]
        usual = {"phase": 1, "code": "", "notice": ""}
        fields = {name: value for name, value in vars(self).items() if name not in usual or value != usual[name]}
        return canonical_json({**fields, "parts": parts, "metrics": metrics})

    @classmethod
    def from_bytes(cls, raw: bytes) -> UpdateStatement:
        """Read and bound a statement from anybody.

        Raises:
            IdentityError: It is not such a statement.
            LimitExceeded: It is too long.
        """
        return read_canonical(_UPDATE, raw, "update/1", MAX_STATEMENT_BYTES)


@with_config(STRICT)
@dataclass(frozen=True)
class ReceiptStatement:
    """What the coordinator says of an update that it has."""

    federation: Text
    run: Text
    round: Count
    node: Text
    update: Text
    received_at: Finite
    covey: Literal["receipt/1"] = field(default="receipt/1", kw_only=True, repr=False)

    def to_bytes(self) -> bytes:
        """The statement's canonical bytes."""
        return canonical_json(vars(self))

    @classmethod
    def from_bytes(cls, raw: bytes) -> ReceiptStatement:
        """Read a receipt.

        Raises:
            IdentityError: It is none.
            LimitExceeded: It is too long.
        """
        return read_canonical(_RECEIPT, raw, "receipt/1", MAX_STATEMENT_BYTES)


@with_config(STRICT)
@dataclass(frozen=True)
class CommitVerdict:
    """What became of one update in a commit."""

    node: Text
    update: Text
    verdict: Text
    reason: Annotated[str, Field(max_length=MAX_REASON)]
    share: Finite
    round: Annotated[int, Field(ge=0, lt=MAX_ROUND)] = 0
    """The update's round, in a run where a commit is about updates of several rounds; 0: the commit's own."""
    phase: Annotated[int, Field(ge=1, le=MAX_PHASE)] = 1
    """The update's phase."""

    def fields(self) -> dict[str, Any]:
        """What is signed; a round of 0 and a phase of 1 are left out."""
        usual = {"round": 0, "phase": 1}
        return {name: value for name, value in vars(self).items() if name not in usual or value != usual[name]}


@with_config(STRICT)
@dataclass(frozen=True)
class CommitStatement:
    """What the coordinator says of a version, chained to the one before.

    Version 2 says the same, and that the rows of the record are sealed (`covey.storage.record.seals`).
    """

    federation: Text
    run: Text
    round: Count
    version: Count
    model_sha256: Text
    artifact: Text
    parent: Text
    verdicts: Annotated[tuple[CommitVerdict, ...], Field(max_length=MAX_NODES), FailFast()]
    state: Annotated[tuple[Text, ...], Field(max_length=MAX_STATE), FailFast()]
    covey: Literal["commit/1", "commit/2"] = field(default="commit/1", kw_only=True, repr=False)

    def to_bytes(self) -> bytes:
        """The statement's canonical bytes."""
        verdicts = [verdict.fields() for verdict in self.verdicts]
        return canonical_json({**vars(self), "verdicts": verdicts, "state": list(self.state)})

    @classmethod
    def from_bytes(cls, raw: bytes) -> CommitStatement:
        """Read a commit.

        Raises:
            IdentityError: It is none.
            LimitExceeded: It is too long.
        """
        return read_canonical(_COMMIT, raw, ("commit/1", "commit/2"), MAX_COMMIT_BYTES)


_UPDATE = TypeAdapter(UpdateStatement)
_RECEIPT = TypeAdapter(ReceiptStatement)
_COMMIT = TypeAdapter(CommitStatement)
