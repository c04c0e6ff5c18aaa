"""Seals: what the coordinator signs of the rows that are shown, in the transaction that writes them.

A seal lists rows as they are from its transaction on. The seals of a run are numbered from 1 and chained, so that none
can be changed, left out or put in; of each row the newest seal counts. Events that are of no run have a chain of their
own, under the name of the empty run.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

DOMAIN = b"covey/seal/1\n"
"""What is signed begins with it, so that no signature made for another purpose passes for a seal's."""
KIND = "seal/1"
LONGEST = 200
"""Characters of a text, or of another value in canonical JSON; of a longer one the seal has the SHA-256."""
BYTES = "$bytes"
LOCAL = {
    ("assignments", "kept"): "retention lets files go later; whether they are there is seen on the disk",
    ("model_versions", "kept"): "retention lets files go later; whether they are there is seen on the disk",
    ("steps", "state"): "kept of the newest step only; its SHA-256, which is sealed, is compared with it",
}
"""Columns that no seal covers, and why."""
SEALED = {
    "runs": (),
    "groups": ("number",),
    "assignments": ("group_number", "phase", "node"),
    "model_versions": ("version",),
    "steps": ("number",),
    "events": ("id",),
    "gossip_members": ("node",),
}
"""The tables whose rows are sealed: what names a row within its run."""

Key = tuple[int | str, ...]
Values = Mapping[str, Any]


class Sealer(Protocol):
    """Whose signature seals have."""

    @property
    def federation(self) -> str:
        """The federation's name."""

    def sign(self, statement: bytes) -> bytes:
        """The coordinator's Ed25519 signature of `DOMAIN` and the statement."""


@dataclass(frozen=True)
class SealRecord:
    """A signed seal."""

    run: str
    number: int
    statement: bytes
    signature: bytes


@dataclass(frozen=True)
class RawRow:
    """A row as the database has it, whatever its columns should hold: bytes as `{"$bytes": hex}`, JSON parsed."""

    table: str
    values: Values


@dataclass(frozen=True)
class Facts:
    """What a seal says beside its rows.

    Attributes:
        before: In the first seal of a run that was on record before there were seals: how many of its groups,
            versions, steps and events no seal covers.
        end: In the seal of a run's end: its state, its last version, and how many versions, groups and steps it has.
    """

    before: Mapping[str, int] = field(default_factory=dict)
    end: Mapping[str, Any] = field(default_factory=dict)


class Seals(ABC):
    """Seals, and the rows that they are about."""

    @abstractmethod
    def seal_with(self, sealer: Sealer) -> None:
        """From now on each transaction that changes what is shown seals it."""

    @abstractmethod
    def audited_rows(self, run: str) -> Iterator[RawRow]:
        """Every row of a run that an audit looks at, with its seals (`seals`) and its nodes' keys (`keys`).

        Then the events of no run, with their seals. All is of one moment.
        """


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def canonical(value: object) -> bytes:
    """Canonical JSON: sorted keys, no spaces, ASCII; infinities and NaN as `{"$float": "inf"}`."""
    try:
        text = _encode(value)
    except ValueError:
        text = _encode(_marked(value))
    return text.encode("ascii")


def _marked(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, Mapping):
        return {str(key): _marked(item) for key, item in value.items()}
    return [_marked(item) for item in value] if isinstance(value, list | tuple) else value


def bytes_in(value: object) -> bytes | None:
    """The bytes of a column of a `RawRow`; None: it holds something else."""
    if isinstance(value, dict) and value.keys() == {BYTES} and isinstance(value[BYTES], str):
        try:
            return bytes.fromhex(value[BYTES])
        except ValueError:
            return None
    return None


def sealed(table: str, values: Values) -> dict[str, Any]:
    """A row as a seal lists it.

    Args:
        table: Its table.
        values: Its columns, as in `RawRow`.

    Returns:
        `{"table", "key", "values", "digests"}`: short values as they are, and the SHA-256 of long ones and of bytes.
    """
    short: dict[str, Any] = {}
    digests: dict[str, str] = {}
    for name, value in values.items():
        if name == "run" or (table, name) in LOCAL:
            continue
        if value is None or type(value) is int or (type(value) is str and len(value) <= LONGEST):
            short[name] = value
        elif (raw := bytes_in(value)) is not None:
            digests[name] = hashlib.sha256(raw).hexdigest()
        elif len(text := canonical(value)) > LONGEST:
            digests[name] = "json:" + hashlib.sha256(text).hexdigest()
        else:
            short[name] = json.loads(text) if b"$float" in text else value
    return {"table": table, "key": [values.get(name) for name in SEALED[table]], "values": short, "digests": digests}


def statement_of(
    sealer: Sealer, run: str, number: int, parent: str, rows: Sequence[Mapping[str, Any]], facts: Facts
) -> bytes:
    """A seal's exact bytes.

    Args:
        sealer: Whose it is.
        run: The run.
        number: Of the seal in the run, from 1.
        parent: SHA-256 (hex) of the statement before it; empty for the first.
        rows: As `sealed` lists them.
        facts: What else it says.
    """
    statement = {
        "covey": KIND,
        "federation": sealer.federation,
        "run": run,
        "number": number,
        "parent": parent,
        "rows": list(rows),
    }
    more = {name: dict(value) for name, value in vars(facts).items() if value}
    return canonical(statement | more)
