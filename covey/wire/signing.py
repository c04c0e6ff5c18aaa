"""What is signed, and how: canonical statements under a domain tag, with Ed25519.

The exact bytes of a statement are what is sent, signed, stored and checked; nobody makes them a second time.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from covey.errors import IdentityError, LimitExceeded
from covey.wire.canonical import MAX_BYTES, Fields, canonical_json, number, text, whole

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
MAX_COMMIT_BYTES = 1 << 26
MAX_PARTS = 16
MAX_METRICS = 200
MAX_NODES = 100_000
MAX_STATE = 100
MAX_REASON = 10_000
MAX_ROUND = 1 << 40


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


@dataclass(frozen=True)
class PartStatement:
    """One part of an update, as its node signs it."""

    name: str
    codec: str
    options: Mapping[str, Any]
    layout: str
    digest: str
    bytes: int


@dataclass(frozen=True)
class UpdateStatement:
    """What a node says of its update."""

    federation: str
    run: str
    round: int
    node: str
    key: str
    base: str
    parts: tuple[PartStatement, ...]
    weight: float
    metrics: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The statement's canonical bytes.

        Raises:
            LimitExceeded: The weight or a metric is not a finite number.
        """
        for name, pair in (("the weight", (self.weight,)), *self.metrics.items()):
            if not all(map(math.isfinite, pair)):
                raise LimitExceeded(f"{name} is not a finite number: the training has diverged")
        parts = [vars(part) | {"options": dict(part.options)} for part in self.parts]
        metrics = {name: [float(t), float(c)] for name, (t, c) in self.metrics.items()}
        return canonical_json({"covey": "update/1", **vars(self), "parts": parts, "metrics": metrics})

    @classmethod
    def from_bytes(cls, raw: bytes) -> UpdateStatement:
        """Read and bound a statement from anybody.

        Raises:
            IdentityError: It is not such a statement.
            LimitExceeded: It is too long.
        """
        fields = Fields(raw, "update/1", MAX_STATEMENT_BYTES)
        return cls(
            federation=fields.text("federation"),
            run=fields.text("run"),
            round=fields.count("round"),
            node=fields.text("node"),
            key=fields.text("key"),
            base=fields.text("base"),
            parts=tuple(_part(item) for item in fields.items("parts", MAX_PARTS)),
            weight=fields.number("weight"),
            metrics=_metrics(fields.data.get("metrics")),
        )


def _part(item: dict[str, Any]) -> PartStatement:
    options = item.get("options")
    if not isinstance(options, dict):
        raise IdentityError("statement: the options of a part are not an object")
    name, codec, layout, digest = (text(item.get(key), key) for key in ("name", "codec", "layout", "digest"))
    return PartStatement(name, codec, options, layout, digest, whole(item.get("bytes"), "bytes", MAX_BYTES))


def _metrics(value: object) -> dict[str, tuple[float, float]]:
    if not isinstance(value, dict) or len(value) > MAX_METRICS:
        raise IdentityError(f"statement: metrics is not an object of at most {MAX_METRICS} entries")
    found = {}
    for name, pair in value.items():
        if not isinstance(pair, list) or len(pair) != 2:
            raise IdentityError("statement: a metric is not a pair of total and count")
        found[text(name, "the name of a metric")] = (number(pair[0], "a metric"), number(pair[1], "a metric"))
    return found


@dataclass(frozen=True)
class ReceiptStatement:
    """What the coordinator says of an update that it has."""

    federation: str
    run: str
    round: int
    node: str
    update: str
    received_at: float

    def to_bytes(self) -> bytes:
        """The statement's canonical bytes."""
        return canonical_json({"covey": "receipt/1", **vars(self)})

    @classmethod
    def from_bytes(cls, raw: bytes) -> ReceiptStatement:
        """Read a receipt.

        Raises:
            IdentityError: It is none.
            LimitExceeded: It is too long.
        """
        fields = Fields(raw, "receipt/1", MAX_STATEMENT_BYTES)
        return cls(
            federation=fields.text("federation"),
            run=fields.text("run"),
            round=fields.count("round"),
            node=fields.text("node"),
            update=fields.text("update"),
            received_at=fields.number("received_at"),
        )


@dataclass(frozen=True)
class CommitVerdict:
    """What became of one update in a commit."""

    node: str
    update: str
    verdict: str
    reason: str
    share: float
    round: int = 0
    """The update's round, in a run where a commit is about updates of several rounds; 0: the commit's own."""

    def fields(self) -> dict[str, Any]:
        """What is signed; a round of 0 is left out."""
        return {name: value for name, value in vars(self).items() if name != "round" or value}


@dataclass(frozen=True)
class CommitStatement:
    """What the coordinator says of a version, chained to the one before."""

    federation: str
    run: str
    round: int
    version: int
    model_sha256: str
    artifact: str
    parent: str
    verdicts: tuple[CommitVerdict, ...]
    state: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """The statement's canonical bytes."""
        verdicts = [verdict.fields() for verdict in self.verdicts]
        return canonical_json({"covey": "commit/1", **vars(self), "verdicts": verdicts, "state": list(self.state)})

    @classmethod
    def from_bytes(cls, raw: bytes) -> CommitStatement:
        """Read a commit.

        Raises:
            IdentityError: It is none.
            LimitExceeded: It is too long.
        """
        fields = Fields(raw, "commit/1", MAX_COMMIT_BYTES)
        return cls(
            federation=fields.text("federation"),
            run=fields.text("run"),
            round=fields.count("round"),
            version=fields.count("version"),
            model_sha256=fields.text("model_sha256"),
            artifact=fields.text("artifact"),
            parent=fields.text("parent"),
            verdicts=tuple(_verdict(item) for item in fields.items("verdicts", MAX_NODES)),
            state=fields.texts("state", MAX_STATE),
        )


def _verdict(item: dict[str, Any]) -> CommitVerdict:
    node, update, verdict = (text(item.get(key), key) for key in ("node", "update", "verdict"))
    reason = item.get("reason")
    if not isinstance(reason, str) or len(reason) > MAX_REASON:
        raise IdentityError(f"statement: a reason is not a text of at most {MAX_REASON} characters")
    of_round = whole(item.get("round", 0), "round", MAX_ROUND)
    return CommitVerdict(node, update, verdict, reason, number(item.get("share"), "share"), of_round)
