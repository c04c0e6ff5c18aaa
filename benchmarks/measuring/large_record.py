"""A large record, written in bulk: what years of runs leave in a store, for measuring how it is read."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Table, insert

from covey.artifact import artifact_of
from covey.storage.record.contract import (
    EventRecord,
    NodeRecord,
    PartRecord,
    RoundRecord,
    RunRecord,
    StepRecord,
    UpdateRecord,
    VersionRecord,
)
from covey.storage.sql import mapping
from covey.storage.sql.database import Database
from covey.storage.sql.schema import assignments, events, groups, keys, nodes, runs, steps, versions
from covey.storage.sql.store import open_store

BLOCK_ROWS = 2000
UPDATES_A_VERSION = 4
ROUNDS_OF_SMALL_RUNS = 3
ASYNC, SYNC = "asynchronous", "synchronous"
FILE = artifact_of([bytes(1000)])
PARTS = (PartRecord("model", "none", FILE),)
STATEMENT, SIGNATURE, KEY = b"s" * 700, bytes(64), bytes(32)
"""As long as real ones."""


@dataclass(frozen=True)
class Size:
    """How much there is of each kind."""

    updates: int = 100_000
    """Of the one asynchronous run."""
    rounds: int = 2_000
    """Of the one long synchronous run."""
    runs: int = 200
    """In all."""
    nodes: int = 8
    events: int = 5_000

    @property
    def names(self) -> tuple[str, ...]:
        """Of the nodes."""
        return tuple(f"node-{number:03}" for number in range(self.nodes))


def fill_store(url: str, size: Size) -> None:
    """Write the record into an empty database, which is brought to this version's schema first."""
    with closing(open_store(url)) as store:
        fill(store.database, size)


def fill(database: Database, size: Size) -> None:
    """Write the whole record into an empty database, a run a transaction."""
    people = [NodeRecord(name, "node", "active", 1.0, key_id=name, tasks=("digits",)) for name in size.names]
    _write(database, [(nodes, (mapping.node_values(person) | {"token": ""} for person in people))])
    owned = [{"key_id": n, "node": n, "public_key": KEY, "valid_from": 1.0, "valid_until": None} for n in size.names]
    _write(database, [(keys, owned)])
    _write(database, _asynchronous(size))
    _write(database, _synchronous(SYNC, size.names, size.rounds, 1))
    for number in range(2, size.runs):
        _write(database, _synchronous(f"small-{number:04}", size.names[:2], ROUNDS_OF_SMALL_RUNS, number))
    happened = (EventRecord(float(n), "node-connected", SYNC, size.names[n % size.nodes]) for n in range(size.events))
    _write(database, [(events, map(mapping.event_values, happened))])


def _write(database: Database, tables: Iterable[tuple[Table, Iterable[dict[str, Any]]]]) -> None:
    with database.writing() as connection:
        for table, rows in tables:
            remaining = iter(rows)
            while block := list(itertools.islice(remaining, BLOCK_ROWS)):
                connection.execute(insert(table), block)


Tables = list[tuple[Table, Iterator[dict[str, Any]]]]


def _asynchronous(size: Size) -> Tables:
    """A run in which each fourth update makes a version."""
    run, whole = ASYNC, range(1, size.updates + 1)
    return [
        (runs, iter([_run(run, "async", size.names, 0)])),
        (versions, (_version(run, number) for number in range(size.updates // UPDATES_A_VERSION + 1))),
        (groups, (_group(run, n, (_sender(size, n),), _base(n), _base(n) + 1, "decided", n) for n in whole)),
        (assignments, (_update(run, n, _sender(size, n), _base(n)) for n in whole)),
        (steps, (_decision(size, n) for n in whole)),
    ]


def _synchronous(run: str, names: tuple[str, ...], rounds: int, place: int) -> Tables:
    whole = range(1, rounds + 1)
    return [
        (runs, iter([_run(run, "rounds", names, place)])),
        (versions, (_version(run, number) for number in range(rounds + 1))),
        (groups, (_group(run, number, names, number - 1, number, "committed", None) for number in whole)),
        (assignments, (_update(run, number, node, number - 1) for number in whole for node in names)),
        (steps, (_commit(run, number, names) for number in whole)),
    ]


def _sender(size: Size, number: int) -> str:
    return size.names[number % size.nodes]


def _base(number: int) -> int:
    return (number - 1) // UPDATES_A_VERSION


def _run(run: str, mode: str, roster: tuple[str, ...], place: int) -> dict[str, Any]:
    section = '"async":{"updates":100000}' if mode == "async" else '"rounds":{"count":2000}'
    record = RunRecord(run, f"name of {run}", mode, f"{{{section}}}", 7, "completed", "", 1000.0 + place)
    return mapping.run_values(replace(record, started_at=1001.0, ended_at=9000.0, roster=roster, layout="[]"))


def _version(run: str, number: int) -> dict[str, Any]:
    sha256 = hashlib.sha256(f"{run} {number}".encode()).hexdigest()
    parent = hashlib.sha256(f"{run} {number - 1}".encode()).hexdigest() if number else ""
    metrics = {"accuracy": 0.9, "loss": 0.5} if number % 5 == 1 else {}
    version = VersionRecord(run, number, sha256, FILE, 2000.0 + number, parent, (), STATEMENT, SIGNATURE, metrics)
    return mapping.version_values(replace(version, evaluated=bool(metrics), kept=False))


def _group(
    run: str, number: int, invited: tuple[str, ...], base: int, version: int, state: Any, arrival: int | None
) -> dict[str, Any]:
    opened = 2000.0 + number
    record = RoundRecord(run, number, 1, state, invited, base, opened, opened, opened + 0.5, 4000, 4000)
    return mapping.round_values(replace(record, version=version, arrival=arrival))


def _update(run: str, number: int, node: str, base: int) -> dict[str, Any]:
    record = UpdateRecord(
        run=run,
        round=number,
        node=node,
        verdict="accepted",
        digest=hashlib.sha256(f"{run} {number} {node}".encode()).hexdigest(),
        statement=STATEMENT,
        signature=SIGNATURE,
        key_id=node,
        parts=PARTS,
        bytes=4000,
        weight=10.0,
        share=0.25,
        numbers={"staleness": 1.0},
        metrics={"loss": [1.5, 10.0]},
        received_at=2000.0 + number,
        kept=False,
    )
    return mapping.update_values(record, 1, base)


def _verdict(number: int, node: str) -> dict[str, Any]:
    fields = {"round": number, "node": node, "verdict": "accepted", "reason": "", "share": 0.25}
    return {**fields, "numbers": {"staleness": 1.0}}


def _decision(size: Size, number: int) -> dict[str, Any]:
    version = number // UPDATES_A_VERSION if number % UPDATES_A_VERSION == 0 else None
    verdicts = (_verdict(number, _sender(size, number)),)
    state = "{}" if number == size.updates else ""
    cause = ((number, 1),)
    record = StepRecord(ASYNC, number, cause, _base(number), version, size.nodes, verdicts, 2000.5, state, "0" * 64)
    return mapping.step_values(record) | {"accepted": number, "rejected": 0}


def _commit(run: str, number: int, names: tuple[str, ...]) -> dict[str, Any]:
    judged = tuple(_verdict(number, node) for node in names)
    record = StepRecord(run, number, ((number, 1),), number - 1, number, len(names), judged, 2000.5 + number)
    counts = {"accepted": number * len(names), "rejected": 0}
    return mapping.step_values(record) | counts
