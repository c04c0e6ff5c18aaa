"""A node's record: what is durable when, what a restart begins with, and records that cannot be used."""

import asyncio
import errno
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import event, inspect, text, update

from covey.artifact import Artifact, artifact_of
from covey.errors import DiskFull, StoreError
from covey.gossip.ledger import Incarnation
from covey.gossip.mass import ONE
from covey.gossip.push_sum.events import Arrived, PeerEvicted
from covey.gossip.push_sum.machine import PushSum, PushSumPolicy
from covey.node.gossip.ports import Snapshot
from covey.node.gossip.record.database import open_record, require_version, sync_as
from covey.node.gossip.record.reader import (
    RunFacts,
    digests_of,
    machine_of,
    read_filters,
    read_saved,
    rows_of,
    write_facts,
)
from covey.node.gossip.record.rows import peers_by_now
from covey.node.gossip.record.schema import EdgeRow, ExchangeRow, FilterRow, PeerRow, RunRow, SnapshotRow, StepRow
from covey.node.gossip.record.writer import SqliteRecord, StepFacts

A, B = Incarnation("a"), Incarnation("b")
POLICY = PushSumPolicy(5)


def body(text_: str) -> Artifact:
    return artifact_of([text_.encode()])


class Written:
    """A record in a folder, written to."""

    def __init__(self, folder: Path) -> None:
        self.engine = open_record(folder)
        self.facts = RunFacts("run", "{}", A, (A, B), ONE)
        write_facts(self.engine, self.facts)
        self.failures: list[Exception] = []
        self.order: list[str] = []
        call = asyncio.get_running_loop().call_soon_threadsafe
        self.step = StepFacts(1.5, 0.5, {"loss": 2.0})
        self.record = SqliteRecord(self.engine, "process", call, lambda: self.step, self.failures.append)
        self.machine = PushSum(A, POLICY, [B], is_met=True)

    def says(self, name: str) -> Callable[[], None]:
        return lambda: self.order.append(name)

    async def settled(self) -> None:
        done = asyncio.Event()
        self.record.when_durable(done.set)
        await done.wait()


async def test_writes_count_in_order_and_a_publication_takes_the_place_of_notes(tmp_path: Path) -> None:
    written = Written(tmp_path)
    machine, record = written.machine, written.record
    machine.handle(arrived := Arrived(B, 1, 7, 0, 0.0))
    record.note(arrived, body("came"), written.says("note"))
    record.when_durable(written.says("after the note"))
    assert written.order == []  # nothing is durable yet
    batches = machine.exchange.give({B: 10}, 0)
    inbox = {(B, 1): body("came")}
    record.publish(Snapshot(0, machine, body("z"), {0: body("z")}, inbox), batches, written.says("publication"))
    later = PeerEvicted(B, 0.0)
    record.note(later, None, written.says("notice"))
    machine.handle(later)  # changes nothing of what was published before
    await written.settled()
    assert written.order == ["note", "after the note", "publication", "notice"]
    record.when_durable(written.says("at once"))
    assert written.order[-1] == "at once"
    saved = read_saved(written.engine)
    assert [event for event, _ in saved.noted] == [later]
    assert digests_of(saved) == {body("z").digest, body("came").digest}
    again = machine_of(written.facts, POLICY, saved)
    assert again.exchange.ledger == machine.exchange.ledger
    assert [row["state"] for row in rows_of(written.engine, PeerRow)] == ["there"]
    assert [row["state"] for row in peers_by_now(rows_of(written.engine, PeerRow), again.exchange)] == ["evicted"]
    assert [row["peer"] for row in peers_by_now([], again.exchange)] == ["b"]
    (edge,) = rows_of(written.engine, EdgeRow)
    assert (edge["sent"], edge["waiting"], edge["applied"]) == ("10", "10", "7")
    ways = [(row["way"], row["units"], row["size_bytes"]) for row in rows_of(written.engine, ExchangeRow)]
    assert ways == [("in", "7", 4), ("out", "10", 1)]
    (step,) = rows_of(written.engine, StepRow)
    assert (step["live"], step["in_flight"], step["trained_s"]) == (str(ONE + 7 - 10), "10", 1.5)
    record.close()


async def test_what_stays_with_the_node_is_written_with_its_snapshot_and_replaced_with_it(tmp_path: Path) -> None:
    written = Written(tmp_path)
    machine, record = written.machine, written.record
    for step, kept in enumerate([body("momentum"), body("later"), None]):
        record.publish(Snapshot(step, machine, body("z"), {step: body("z")}, {}, kept), (), written.says("publication"))
        await written.settled()
        saved = read_saved(written.engine)
        assert saved.snapshot is not None
        assert saved.snapshot.kept == kept
        assert digests_of(saved) == {body("z").digest, *([kept.digest] if kept else [])}
    with written.engine.begin() as connection:  # as an earlier version left it
        connection.execute(text("DROP TABLE kept"))
    record.close()
    engine = open_record(tmp_path)
    assert read_saved(engine).snapshot is not None
    engine.dispose()


async def test_which_filters_trainings_passed_is_on_record_from_their_first_step_on(tmp_path: Path) -> None:
    written = Written(tmp_path)
    for step, filters in enumerate([None, ("clip 1",), ("clip 1",), ("clip 2", "noise"), ()]):
        written.step = replace(written.step, filters=filters)
        snapshot = Snapshot(step, written.machine, body("z"), {step: body("z")}, {})
        written.record.publish(snapshot, (), written.says("publication"))
        await written.settled()
        assert read_filters(written.engine) == (filters or ())
    rows = [(row["step"], row["names"]) for row in rows_of(written.engine, FilterRow)]
    assert rows == [(1, ["clip 1"]), (3, ["clip 2", "noise"]), (4, [])]
    written.record.close()


async def test_a_record_that_cannot_be_written_says_so_and_nothing_counts(tmp_path: Path) -> None:
    written = Written(tmp_path)
    with written.engine.begin() as connection:
        connection.execute(text("DROP TABLE notes"))
    written.record.note(PeerEvicted(B, 0.0), None, written.says("note"))
    written.record.close()
    await asyncio.sleep(0)
    assert written.order == []
    assert "no such table" in str(written.failures[0])


async def test_whatever_goes_wrong_in_its_thread_or_in_an_answer_is_said(tmp_path: Path) -> None:
    written = Written(tmp_path)

    def fails() -> None:
        raise KeyError("an answer")

    written.record.note(PeerEvicted(B, 0.0), None, fails)
    written.record.note(PeerEvicted(B, 0.0), None, written.says("note"))
    await written.settled()
    assert written.order == ["note"]
    assert [str(error) for error in written.failures] == ["'an answer'"]
    written.record._put("note", lambda _: fails(), written.says("never"))
    written.record.close()
    await asyncio.sleep(0)
    assert (len(written.failures), written.order) == (2, ["note"])


async def test_the_model_that_a_node_came_to_is_named_at_the_end_if_its_file_can_be_read(tmp_path: Path) -> None:
    written = Written(tmp_path)
    call = asyncio.get_running_loop().call_soon_threadsafe
    files = {body("old").digest: "sha of old"}

    def sha256_of(model: Artifact) -> str:
        if model.digest not in files:
            raise OSError(errno.EIO, "it cannot be read")
        return files[model.digest]

    record = SqliteRecord(written.engine, "process", call, StepFacts, written.failures.append, sha256_of=sha256_of)
    names = lambda table: [row["model_sha256"] for row in rows_of(written.engine, table)]  # noqa: E731
    for step, model in enumerate(("old", "new")):
        record.publish(Snapshot(step, written.machine, body(model), {}, {}), (), written.says(model))
        record.ended("completed", "")
        done = asyncio.Event()
        record.when_durable(done.set)
        await done.wait()
        assert (names(SnapshotRow), names(StepRow)) == ([["sha of old"], [""]][step], ["sha of old", ""][: step + 1])
    files[body("new").digest] = "sha of new"
    record.ended("completed", "")
    await asyncio.to_thread(record.close)
    assert (names(SnapshotRow), names(StepRow)) == (["sha of new"], ["sha of old", "sha of new"])
    assert [row["ended"] for row in rows_of(written.engine, RunRow)] == ["completed"]
    assert written.failures == []


async def test_a_write_for_which_there_is_no_room_is_made_when_there_is(tmp_path: Path) -> None:
    written = Written(tmp_path)
    met: list[StoreError | None] = []
    raw: list[sqlite3.Connection] = []

    @event.listens_for(written.engine, "connect")
    def small(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # which is raised to what there is
        raw.append(connection)

    written.engine.dispose()
    call = asyncio.get_running_loop().call_soon_threadsafe
    record = SqliteRecord(written.engine, "process", call, StepFacts, written.failures.append, on_obstructed=met.append)
    noted = Arrived(B, 1, 7, 0, 0.0)
    for number in range(50):
        large = Arrived(Incarnation("b" * 4000), number, 7, 0, 0.0)
        record.note(large, body("came"), written.says("note"))
    async with asyncio.timeout(60):
        while not met:  # noqa: ASYNC110 -- it is said from a thread
            await asyncio.sleep(0.01)
        assert isinstance(met[0], DiskFull)
        assert written.order == []
        raw[-1].execute("PRAGMA max_page_count = 100000")
        record.note(noted, body("came"), written.says("last"))
        while met[-1] is not None or "last" not in written.order:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert written.order == ["note"] * 50 + ["last"]
    assert written.failures == []
    record.close()
    assert len(read_saved(written.engine).noted) == 51


async def test_a_record_for_which_there_is_no_room_can_be_closed_all_the_same(tmp_path: Path) -> None:
    written = Written(tmp_path)

    @event.listens_for(written.engine, "connect")
    def small(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")

    written.engine.dispose()
    call = asyncio.get_running_loop().call_soon_threadsafe
    record = SqliteRecord(written.engine, "process", call, StepFacts, written.failures.append)
    record.note(Arrived(Incarnation("b" * 400_000), 1, 7, 0, 0.0), body("came"), written.says("note"))
    await asyncio.to_thread(record.close)
    await asyncio.sleep(0)
    assert [type(failure) for failure in written.failures] == [DiskFull]
    assert written.order == []


def test_a_record_of_a_newer_form_is_refused_in_words(tmp_path: Path) -> None:
    engine = open_record(tmp_path)
    write_facts(engine, RunFacts("run", "{}", A, (A, B), ONE))
    with engine.begin() as connection:
        connection.execute(update(RunRow).values(version=99))
        connection.execute(text("DROP TABLE spans"))
    with pytest.raises(StoreError, match=r"a newer version of Covey \(form 99; .*\): start the node with"):
        open_record(tmp_path)
    assert not inspect(engine).has_table("spans")  # nothing in it was touched
    engine.dispose()
    with pytest.raises(StoreError, match="newer version"):
        require_version(engine, tmp_path)
    engine.dispose()


@pytest.mark.parametrize(("durability", "synchronous"), [("process", 1), ("power", 2)])
def test_what_is_synced(tmp_path: Path, durability, synchronous: int) -> None:
    engine = open_record(tmp_path)
    with engine.connect() as connection:
        sync_as(connection, durability)
        assert connection.execute(text("PRAGMA synchronous")).scalar() == synchronous
    engine.dispose()
