"""A federation as one object, read from a data directory on which no coordinator runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from covey.client import connect
from covey.client.errors import Unreachable
from covey.client.reading import paging
from covey.client.reading.shares import capped_shares
from covey.client.values import Round, RoundDetail, Run, Update
from covey.errors import NotFound, SpecError
from covey.storage.record.contract import EventRecord

SPEC = {"name": "digits", "task": {"name": "digits"}}


@pytest.fixture
def connection(recorder):
    with connect(recorder.data_dir) as connection:
        yield connection


def test_it_is_said_how_to_connect(tmp_path):
    for arguments in ({}, {"server": "host:1"}, {"data_dir": tmp_path, "server": "host:1"}, {"identity": tmp_path}):
        with pytest.raises(ValueError, match=r"data_dir.* server and identity"):
            connect(**arguments)


def test_a_folder_that_holds_no_record_is_said_when_it_is_read(tmp_path):
    with connect(tmp_path) as connection, pytest.raises(NotFound, match=r"it has no covey\.db"):
        connection.runs()


def test_runs_are_values(recorder, connection):
    recorder.run("first", rounds=3)
    recorder.run("second")
    second, first = connection.runs()
    assert (second.run, second.state, second.done, second.whole, second.unit) == (
        "second",
        "interrupted",
        0,
        20,
        "rounds",
    )
    assert (first.rounds_committed, first.model_sha256) == (3, recorder.version("first", 3).model_sha256)
    assert (first.started_at, first.ended_at, first.roster) == (200.0, None, ("ada", "bob"))
    assert first.spec["rounds"] == {"count": 20}
    assert connection.run("name-of-first") == first
    assert connection.run(first) == first
    assert connection.runs(before="second") == [first]
    assert connection.runs(1) == [second]
    assert connection.runs(before="name-of-second") == [first]
    with pytest.raises(NotFound):
        connection.runs(before="third")
    with pytest.raises(NotFound):
        connection.run("third")


def test_lists_are_whole_however_many_pages_they_come_in(recorder, connection, monkeypatch):
    monkeypatch.setattr(paging, "PAGE", 2)
    for number in range(5):
        recorder.run(f"run-{number}", rounds=number)
    assert [run.run for run in connection.every_run()] == [f"run-{n}" for n in (4, 3, 2, 1, 0)]
    assert [run.run for run in connection.runs(3)] == ["run-4", "run-3", "run-2"]
    assert [item.round for item in connection.rounds("run-4")] == [1, 2, 3, 4]
    assert [item.round for item in connection.rounds("run-4", after=1, limit=2)] == [2, 3]
    assert [item.round for item in connection.rounds("run-4", limit=3, newest=True)] == [2, 3, 4]
    assert [item.round for item in connection.rounds("run-4", after=3, limit=3, newest=True)] == [4]
    assert connection.rounds("run-0", limit=3, newest=True) == []
    assert [item.round for item in connection.every_round("run-4", after=2)] == [3, 4]


def test_what_is_not_taken_is_not_read(recorder, connection, monkeypatch):
    monkeypatch.setattr(paging, "PAGE", 1)
    recorder.run("run", rounds=4)
    rounds = connection.every_round("run")
    assert [next(rounds).round, next(rounds).round] == [1, 2]
    rounds.close()
    assert connection.run("run").rounds_committed == 4


def test_a_round_with_its_updates_and_version(recorder, connection):
    recorder.run("run", rounds=2)
    detail = connection.round("run", 2)
    assert [(update.node, update.verdict, update.share) for update in detail.updates] == [
        ("ada", "accepted", 0.5),
        ("bob", "accepted", 0.5),
    ]
    assert (detail.round.base_version, detail.version) == (1, connection.version("run"))
    recorder.open("run", 3)
    assert connection.round("run", 3).version is None
    assert detail.capped == {}


def test_a_cap_that_binds_is_said():
    updates = (Update("ada", "accepted", weight=900, share=0.5), Update("bob", "accepted", weight=100, share=0.5))
    detail = RoundDetail(Round(1, "committed", 1), (*updates, Update("cy", "rejected", weight=10_000)))
    assert capped_shares(detail, {"weights": {"by": "examples", "max_share": 0.5}}) == {"ada": 0.9}
    assert capped_shares(detail, {}) == capped_shares(detail, {"weights": {"by": "something newer"}}) == {}


def test_a_version_is_exported_with_progress(recorder, connection, tmp_path):
    recorder.run("run", rounds=2)
    artifacts = recorder.data_dir / "files" / "artifacts"
    artifacts.mkdir(parents=True)
    (artifacts / recorder.version("run", 1).artifact.digest).write_bytes(b"run version 1")
    told = []
    written = connection.export("run", tmp_path / "m", version=1, on_progress=lambda *seen: told.append(seen))
    assert (tmp_path / "m").read_bytes() == b"run version 1"
    assert (written.version, written.bytes, told) == (1, 13, [(13, 13)])
    with pytest.raises(NotFound, match="the file of version 2 is gone"):
        connection.export("run", tmp_path / "n")
    with pytest.raises(NotFound, match="'bset' is not a version"):
        connection.version("run", "bset")
    with pytest.raises(NotFound, match="no kept version was evaluated"):
        connection.export("run", tmp_path / "n", version="best")


def test_nodes_and_events(recorder, connection):
    recorder.run("run")
    recorder.store.add_event(EventRecord(5.0, "drill-joined", node="bob", detail={"attack": "alie"}))
    recorder.store.add_event(EventRecord(6.0, "run-waits", run="run", detail={"for": 2}))
    assert [(node.node, node.state, node.drill) for node in connection.nodes()] == [
        ("ada", "away", ""),
        ("bob", "away", "alie"),
    ]
    assert [event.kind for event in connection.events()] == ["run-waits", "drill-joined"]
    assert [event.detail for event in connection.events(run="name-of-run")] == [{"for": 2}]
    assert [event.at for event in connection.events(node="bob", limit=None)] == [5.0]
    assert [event.at for event in connection.node("bob").events] == [5.0]
    with pytest.raises(NotFound):
        connection.node("cyd")


@pytest.mark.parametrize(
    "ask",
    [
        lambda c: c.submit(SPEC),
        lambda c: c.stop("run"),
        lambda c: list(c.watch("run")),
        lambda c: c.status(),
        lambda c: c.token("a"),
        lambda c: c.pause(),
        lambda c: c.backup("there"),
    ],
)
def test_what_needs_a_coordinator_says_how_to_start_one(connection, recorder, ask):
    with pytest.raises(Unreachable, match=f"covey coordinator start --data-dir {recorder.data_dir}"):
        ask(connection)


def test_a_wrong_specification_is_said_before_anything_is_asked(connection):
    with pytest.raises(SpecError, match="task"):
        connection.submit({"name": "digits"})


def test_a_run_is_replayed_from_its_files_only(tmp_path):
    with connect(server="127.0.0.1:1", identity=tmp_path) as connection, pytest.raises(NotFound, match="data_dir"):
        connection.replay(Run("run", "name", "async", "completed"))


async def test_it_works_where_an_event_loop_runs_already(recorder):
    recorder.run("run")
    with connect(recorder.data_dir) as connection:
        assert [run.run for run in connection.runs()] == ["run"]


def test_importing_the_package_imports_nothing_heavy():
    heavy = ("grpc", "sqlalchemy", "torch", "rich", "click", "pydantic")
    program = f"import sys, covey.client; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_connecting_imports_neither_torch_nor_a_database_nor_the_command_line():
    heavy = ("torch", "sqlalchemy", "click", "covey.cli")
    program = f"import sys; from covey.client import connect; print([n for n in {heavy!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
