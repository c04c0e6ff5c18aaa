"""Writes a node's record in a thread of its own: what waits goes into one transaction, in the order of the calls."""

from __future__ import annotations

import functools
import json
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from sqlalchemy import Connection, Engine, delete, exc, insert, select, update
from sqlalchemy.dialects.sqlite import insert as insert_once
from typing_extensions import override

from covey.artifact import Artifact, artifact_from_json, artifact_to_json
from covey.errors import CoveyError, Obstructed, StoreError, StoreUnavailable
from covey.faults import reach
from covey.gossip.ledger import Batch
from covey.gossip.push_sum.events import Arrived
from covey.node.gossip.diary import Diary
from covey.node.gossip.ports import Noted, Record, Snapshot
from covey.node.gossip.receipts import Kept, Receipts
from covey.node.gossip.record import rows
from covey.node.gossip.record.database import Durability, sync_as
from covey.node.gossip.record.models import Keeping
from covey.node.gossip.record.schema import (
    BodyRow,
    EdgeRow,
    ExchangeRow,
    FilterRow,
    KeptRow,
    MetricRow,
    ModelRow,
    NoteRow,
    PeerRow,
    ReceiptRow,
    RunRow,
    SnapshotRow,
    SpanRow,
    StepRow,
)
from covey.node.gossip.state import TABLE
from covey.storage.sql.engine import store_error

Save = Callable[[Connection], None]
log = structlog.get_logger(room="gossip")
CLOSE_S = 60.0
RETRY_S = 1.0
"""After how long a write that this machine was in the way of is tried again."""


@dataclass(frozen=True)
class StepFacts:
    """What the record is told of a step beside its snapshot."""

    trained_s: float = 0.0
    blocked_s: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    filters: tuple[str, ...] | None = None
    """Of the site, that its training has passed; None: this process has not trained yet."""


@dataclass(frozen=True)
class _Write:
    kind: str
    save: Save | None
    then: Callable[[], None]


class SqliteRecord(Record[Artifact]):
    """The record of one incarnation in one run.

    Args:
        engine: Of its database.
        durability: `process`: what is acknowledged survives the end of this process; `power`: a power cut too.
        call: Calls something on the event loop, from any thread.
        facts: Asked for at each publication.
        on_failed: Told, on the event loop, when the record cannot be written; nothing is written from then on. Told
            also of what goes wrong in a `then`: the others are called all the same.
        diary: What it takes along with each publication.
        receipts: Likewise; and with each batch that comes, what its sender signed.
        on_obstructed: Told, on the event loop, what is in the way of a write, each time that it was tried; None: it was
            written after all.
        keeping: Which models stay; None: none.
        sha256_of: The model_sha256 of a model whose file is there: read at the end, as it takes a pass over the file.
    """

    def __init__(
        self,
        engine: Engine,
        durability: Durability,
        call: Callable[[Callable[[], None]], object],
        facts: Callable[[], StepFacts],
        on_failed: Callable[[Exception], None],
        diary: Diary | None = None,
        receipts: Receipts | None = None,
        on_obstructed: Callable[[StoreError | None], None] = lambda _: None,
        keeping: Keeping | None = None,
        sha256_of: Callable[[Artifact], str] = lambda _: "",
    ) -> None:
        self._diary, self._receipts, self._keeping = diary or Diary(), receipts, keeping
        self._sha256_of = sha256_of
        self._engine, self._durability, self._call = engine, durability, call
        self._facts, self._on_failed, self._on_obstructed = facts, on_failed, on_obstructed
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._waiting = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="gossip-record", daemon=True)
        self._thread.start()

    # -- the port ---------------------------------------------------------------------------------------------------

    @override
    def note(self, event: Noted, body: Artifact | None, then: Callable[[], None]) -> None:
        at = time.time()
        noted = json.dumps(TABLE.to_json(event))
        exchange = rows.exchange_in(event, body, at)
        kept = self._signed_of(event)

        def save(connection: Connection) -> None:
            artifact = artifact_to_json(body) if body is not None else None
            connection.execute(insert(NoteRow).values(event=noted, artifact=artifact))
            if exchange:
                connection.execute(insert_once(ExchangeRow).values(exchange).on_conflict_do_nothing())
            _keep(connection, [kept] if kept is not None else [])

        def noted_down() -> None:
            if kept is not None and self._receipts is not None:
                self._receipts.took(kept)
            then()

        self._put("note", save, noted_down)

    def _signed_of(self, event: Noted) -> Kept | None:
        """What the sender of a batch that is taken signed."""
        if self._receipts is None or not isinstance(event, Arrived):
            return None
        return self._receipts.of(event.peer, event.sequence)

    @override
    def publish(self, snapshot: Snapshot[Artifact], batches: Sequence[Batch], then: Callable[[], None]) -> None:
        at, facts = time.time(), self._facts()
        exchange = snapshot.machine.exchange
        step = rows.step_row(snapshot.step, exchange, at, facts.trained_s, facts.blocked_s)
        tables = [
            (BodyRow, rows.body_rows(snapshot)),
            (KeptRow, rows.kept_rows(snapshot)),
            (EdgeRow, rows.edge_rows(exchange)),
            (PeerRow, rows.peer_rows(exchange)),
        ]
        given = [rows.exchange_out(batch, snapshot, at) for batch in batches]
        stays = self._keeping.row(snapshot, batches) if self._keeping is not None else None
        newest = rows.snapshot_row(snapshot)
        spans = rows.span_rows(self._diary.taken_out())
        signed = self._receipts.take_unwritten() if self._receipts is not None else []
        measured = [{"step": snapshot.step, "name": name, "value": value} for name, value in facts.metrics.items()]

        def save(connection: Connection) -> None:
            connection.execute(delete(NoteRow))
            connection.execute(delete(SnapshotRow))
            connection.execute(insert(SnapshotRow).values(newest))
            for table, values in tables:
                connection.execute(delete(table))
                if values:
                    connection.execute(insert(table), values)
            connection.execute(delete(StepRow).where(StepRow.step == snapshot.step))
            connection.execute(insert(StepRow).values(step))
            connection.execute(delete(MetricRow).where(MetricRow.step == snapshot.step))
            for history, values in ((MetricRow, measured), (SpanRow, spans)):
                if values:
                    connection.execute(insert(history), values)
            if facts.filters is not None:
                _note_filters(connection, snapshot.step, facts.filters)
            if stays is not None:
                connection.execute(insert(ModelRow).values(stays))
            for row in given:
                connection.execute(insert_once(ExchangeRow).values(row).on_conflict_do_nothing())
            _keep(connection, signed)

        is_on_record = self._diary.begin("publish", snapshot.step)

        def published() -> None:
            is_on_record()
            then()

        self._put("publish", save, published)

    @override
    def when_durable(self, then: Callable[[], None]) -> None:
        if self._waiting:
            self._put("", None, then)
        else:
            then()

    def ended(self, how: str, reason: str) -> None:
        """Note how this node's part is over, and the name of the model that it came to."""

        def save(connection: Connection) -> None:
            self._name(connection)
            _note_end(connection, how, reason)

        self._put("end", save, lambda: None)

    def note_rest(self) -> None:
        """Note all that the diary has, and what peers signed since: the node stops."""
        if signed := self._receipts.take_unwritten() if self._receipts is not None else []:
            self._put("receipts", lambda connection: _keep(connection, signed), lambda: None)
        if spans := rows.span_rows(self._diary.taken_out(all_of_it=True)):
            self._put("spans", lambda connection: _note_spans(connection, spans), lambda: None)

    def close(self) -> None:
        """Write what waits, and end the thread. Blocking, for a minute at the longest.

        Nobody was told of what is not on record then, so a restart goes on from what is.
        """
        self._closing.set()
        self._queue.put(None)
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            log.error("the record's thread does not end", at=self._at(), waiting=self._waiting)
        self._engine.dispose()

    def _at(self) -> str:
        """Where the thread is."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return "".join(traceback.format_stack(frame)[-3:]) if frame is not None else ""

    def _name(self, connection: Connection) -> None:
        """Note the model_sha256 of the newest publication; of a file that cannot be read now it stays unknown."""
        newest = connection.execute(select(SnapshotRow.model, SnapshotRow.step)).one_or_none()
        if newest is None:
            return
        try:
            sha256 = self._sha256_of(artifact_from_json(newest.model))
        except (OSError, CoveyError) as error:
            log.warning("the model that this node came to cannot be read", reason=str(error))
            return
        for table in (SnapshotRow, StepRow):
            connection.execute(update(table).where(table.step == newest.step).values(model_sha256=sha256))

    # -- the thread -------------------------------------------------------------------------------------------------

    def _put(self, kind: str, save: Save | None, then: Callable[[], None]) -> None:
        self._waiting += 1
        self._queue.put(_Write(kind, save, then))

    def _work(self) -> None:
        try:
            with self._engine.connect() as connection:
                sync_as(connection, self._durability)
                for writes in self._batches():
                    self._write_when_possible(connection, writes)
        except Exception as error:  # whatever it is: else all would wait for this thread for ever
            failure = self._meaning(error) if isinstance(error, exc.DBAPIError) else error
            self._call(lambda: self._on_failed(failure))

    def _meaning(self, error: exc.DBAPIError) -> StoreError:
        return store_error(error, Path(self._engine.url.database or ""))

    def _write_when_possible(self, connection: Connection, writes: list[_Write]) -> None:
        """Write, as soon as this machine lets it: what is not written yet nobody was told of.

        Raises:
            exc.DBAPIError: The database refuses, or the record is being closed.
        """
        is_obstructed = False
        while True:
            try:
                self._write(connection, writes)
            except exc.DBAPIError as error:
                obstacle = self._meaning(error)
                if not isinstance(obstacle, Obstructed | StoreUnavailable) or self._closing.is_set():
                    raise
                is_obstructed = True
                self._call(functools.partial(self._on_obstructed, obstacle))
                self._closing.wait(RETRY_S)
            else:
                if is_obstructed:
                    self._call(functools.partial(self._on_obstructed, None))
                return

    def _batches(self) -> Iterator[list[_Write]]:
        """All that waits, each time something does, until the record is closed."""
        while (first := self._queue.get()) is not None:
            writes = [first]
            while not self._queue.empty():
                if (write := self._queue.get()) is None:
                    yield writes
                    return
                writes.append(write)
            yield writes

    def _write(self, connection: Connection, writes: list[_Write]) -> None:
        kinds = [write.kind for write in writes if write.save is not None]
        if kinds:
            with connection.begin():
                for write in writes:
                    if write.save is not None:
                        write.save(connection)
                _reach(kinds, "unrecorded")
            _reach(kinds, "recorded")
        self._call(lambda: self._done(writes))

    def _done(self, writes: list[_Write]) -> None:
        self._waiting -= len(writes)
        for write in writes:
            try:
                write.then()
            except Exception as error:
                self._on_failed(error)


def _reach(kinds: Sequence[str], state: str) -> None:
    for kind in kinds:
        reach(f"gossip-{kind}-{state}")


def _note_end(connection: Connection, how: str, reason: str) -> None:
    connection.execute(update(RunRow).values(ended=how, reason=reason))


def _note_filters(connection: Connection, step: int, filters: tuple[str, ...]) -> None:
    """Note what trainings pass, where that is something else than before."""
    newest = select(FilterRow.names).order_by(FilterRow.step.desc()).limit(1)
    if (connection.scalar(newest) or []) != list(filters):
        connection.execute(delete(FilterRow).where(FilterRow.step >= step))
        connection.execute(insert(FilterRow).values(step=step, names=list(filters)))


def _keep(connection: Connection, signed: Sequence[Kept]) -> None:
    """Put what peers signed in the place of what they signed before."""
    for kept in signed:
        row = rows.receipt_row(kept)
        connection.execute(insert_once(ReceiptRow).values(row).on_conflict_do_update(set_=row))


def _note_spans(connection: Connection, spans: Sequence[rows.Row]) -> None:
    connection.execute(insert(SpanRow), spans)
