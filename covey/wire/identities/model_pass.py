"""What a coordinator gives a node that is to have a model from others: signed, so that they need not know the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import TypeAdapter, with_config

from covey.wire.identities.canonical import STRICT, Text, canonical_json, read_canonical

DOMAIN = b"covey/model-pass/1\n"
MAX_BYTES = 4096


@with_config(STRICT)
@dataclass(frozen=True)
class ModelPass:
    """That a node may have a file of a run: it needs no time, for a file does not change, and nobody else's key fits.

    Attributes:
        federation: Whose.
        run: The run's id.
        node: Who may have it.
        artifact: The file's digest.
    """

    federation: Text
    run: Text
    node: Text
    artifact: Text
    covey: Literal["model-pass/1"] = field(default="model-pass/1", kw_only=True, repr=False)

    def to_bytes(self) -> bytes:
        """The statement's canonical bytes."""
        return canonical_json(vars(self))

    @classmethod
    def from_bytes(cls, raw: bytes) -> ModelPass:
        """Read a pass.

        Raises:
            IdentityError: It is none.
            LimitExceeded: It is too long.
        """
        return read_canonical(_PASS, raw, "model-pass/1", MAX_BYTES)


_PASS = TypeAdapter(ModelPass)
