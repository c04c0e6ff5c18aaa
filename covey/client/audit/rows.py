"""What an audit is given: a run's rows as its record has them, without trust in what they hold."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from covey.client.audit.signed import Commit, SignedRecord, SignedUpdate
from covey.client.values import Run
from covey.errors import IdentityError
from covey.storage.record.seals import bytes_in

Row = Mapping[str, Any]


@dataclass
class AuditedRun:
    """A run's rows by table; `events` and `seals` of no run apart.

    Attributes:
        coordinator_key: Raw Ed25519 public key that the coordinator says that it signs with.
    """

    coordinator_key: bytes = b""
    rows: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    common: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))

    def add(self, table: str, values: Row) -> None:
        """Take one more row."""
        rows = self.common if values.get("run") == "" and table in ("events", "seals") else self.rows
        rows[table].append(values)

    @property
    def run(self) -> Row:
        """The row of the run itself; empty if there is none, or more than one."""
        return self.rows["runs"][0] if len(self.rows["runs"]) == 1 else {}

    def shown(self) -> Run:
        """The run as far as its signed commits are compared with it."""
        newest = max(self.rows["model_versions"], key=lambda row: _whole(row.get("version")), default={})
        spec, run = self.run.get("spec"), self.run
        return Run(
            run=_text(run.get("run")),
            name=_text(run.get("name")),
            mode=_text(run.get("mode")),
            state=_text(run.get("state")),
            rounds_committed=max(0, _whole(newest.get("version"))),
            model_sha256=_text(newest.get("model_sha256")),
            spec=_spec(spec),
        )

    def first_sha256(self) -> str:
        """The model of version 0; empty if it is not on record."""
        return next((_text(r.get("model_sha256")) for r in self.rows["model_versions"] if r.get("version") == 0), "")

    def signed(self) -> SignedRecord:
        """The signed statements of commits and updates."""
        keys = {_text(row.get("key_id")): bytes_in(row.get("public_key")) or b"" for row in self.rows["keys"]}
        return SignedRecord(self.coordinator_key, tuple(self._commits()), tuple(self._updates(keys)))

    def _commits(self) -> Iterator[Commit]:
        for row in self.rows["model_versions"]:
            statement = bytes_in(row.get("statement"))
            if statement != b"":
                yield Commit(_whole(row.get("version")), statement or b"", bytes_in(row.get("signature")) or b"")

    def _updates(self, keys: Mapping[str, bytes]) -> Iterator[SignedUpdate]:
        for row in self.rows["assignments"]:
            if row.get("digest") == "" and bytes_in(row.get("statement")) == b"":
                continue
            yield SignedUpdate(
                round=_whole(row.get("group_number")),
                node=_text(row.get("node")),
                statement=bytes_in(row.get("statement")) or b"",
                signature=bytes_in(row.get("signature")) or b"",
                signing_key=keys.get(_text(row.get("key_id")), b""),
                verdict=_text(row.get("verdict")),
                kept=bool(row.get("kept")),
                base_version=_whole(row.get("base_version")),
            )


def row_in(text: bytes) -> Row:
    """A row's values from its JSON object.

    Raises:
        IdentityError: It is none.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise IdentityError("a row of the record is not JSON") from error
    if not isinstance(value, dict):
        raise IdentityError("a row of the record is not a JSON object")
    return value


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _spec(value: object) -> Mapping[str, Any]:
    try:
        parsed = json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
