from __future__ import annotations

import sqlite3

import pytest

from covey.artifact import CHUNK_BYTES, artifact_of_file
from covey.storage.files.check import check_files
from covey.storage.sql.store import open_store
from covey.testing.store import records as make
from covey.testing.store.asynchronous import arrive, decide, start_async_run


@pytest.fixture
def broken(tmp_path):
    """Makes a sound record, lets a hand at its database change it, and says what `check` finds."""
    path = tmp_path / "covey.db"

    def check(*statements):
        store = open_store(f"sqlite:///{path}")
        run = make.start_run(store)
        make.enrol(store, make.node_record("ada"))
        for number in (1, 2):
            make.play_round(store, run, number, ("ada",))
        assert store.check() == []
        hand = sqlite3.connect(path)
        for statement in statements:
            hand.execute(statement)
        hand.commit()
        hand.close()
        found = store.check()
        store.close()
        return found

    return check


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "DELETE FROM groups WHERE number = 2",
            ["the update of ada belongs to round 2", "took the updates of round 2", "counts 2"],
        ),
        ("DELETE FROM model_versions WHERE version = 2", ["round 2 of run run-1 is committed, but its version"]),
        (
            "UPDATE groups SET number = 3 WHERE number = 2",
            [
                "belongs to round 2",
                "the last one is number 3",
                "round 3",
                "no step",
                "round 2, which is not",
                "counts 2",
            ],
        ),
        ("UPDATE model_versions SET parent_sha256 = 'x' WHERE version = 2", ["version 2 of run run-1 names another"]),
        ("UPDATE model_versions SET model_sha256 = 'x' WHERE version = 1", ["version 2 of run run-1 names another"]),
        (
            "UPDATE groups SET state = 'collecting'",
            ["run run-1 has several open rounds", "round 1, which is collecting", "round 2, which is", "counts 2"],
        ),
        (
            "UPDATE assignments SET verdict = 'received' WHERE group_number = 1",
            ["the update of ada has no verdict", "has 1 accepted updates, but its last step counts 2"],
        ),
        ("DELETE FROM file_references WHERE kind = 'version' AND number = 2", ["version 2 of run run-1 is kept"]),
        ("DELETE FROM keys", ["signing key"]),
        ("UPDATE nodes SET key_id = 'other'", ["signing key other of ada"]),
    ],
)
def test_a_hand_at_the_database_is_noticed(broken, statement, expected):
    found = broken(statement)
    assert len(found) == len(expected)
    for line, part in zip(found, expected, strict=True):
        assert part in line


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT 1", []),
        ("DELETE FROM steps WHERE number = 1", ["has 1 steps, but the last", "round 1 of run run-1 is decided"]),
        ("UPDATE steps SET state = ''", ["the state after the last step of run run-1 (number 2) is not there"]),
        ("UPDATE steps SET cause = '[[3,1]]' WHERE number = 1", ["round 1 of run", "round 3, which is collecting"]),
        ("UPDATE steps SET rejected = 1", ["has 0 rejected updates, but its last step counts 1"]),
        ("UPDATE groups SET version = 9 WHERE number = 2", ["round 2 of run run-1 is decided, but its version"]),
        (
            "UPDATE assignments SET verdict = 'received'",
            ["update of ada has no verdict", "update of bob has no verdict", "has 0 accepted updates"],
        ),
    ],
)
def test_a_hand_at_the_decisions_is_noticed(tmp_path, statement, expected):
    path = tmp_path / "covey.db"
    store = open_store(f"sqlite:///{path}")
    run = start_async_run(store)
    for number, node in ((1, "ada"), (2, "bob")):
        update = arrive(store, run, number, node)
        decide(store, run, number, [make.accepted(update)], make.version_record(run, number))
    for number in (3, 4):  # several may be open
        store.open_round(make.round_record(run, number, invited=("cyd",), base_version=0))
    hand = sqlite3.connect(path)
    hand.execute(statement)
    hand.commit()
    hand.close()
    found = store.check()
    store.close()
    assert len(found) == len(expected)
    for line, part in zip(found, expected, strict=True):
        assert part in line


def test_a_lost_run_leaves_orphans(broken):
    found = broken("DELETE FROM runs")
    assert sum("which is not there" in line for line in found) == len(found) == 7


def test_an_ended_run_has_no_open_round(broken):
    found = broken("UPDATE runs SET state = 'failed'", "UPDATE groups SET state = 'collecting' WHERE number = 2")
    assert found[:2] == [
        "run run-1 has ended, but its round 2 is open",
        "a step of run run-1 took the updates of round 2, which is collecting",
    ]


def test_a_running_run_has_a_version_0(broken):
    found = broken("DELETE FROM model_versions WHERE version = 0")
    assert found == ["run run-1 has version 1, but not the one before it", "run run-1 is running, but has no version 0"]


@pytest.fixture
def files(tmp_path):
    """Three files under their digests: an empty one, a small one, and one of several chunks."""
    folder = tmp_path / "artifacts"
    folder.mkdir()
    for data in (b"", b"small", b"x" * (2 * CHUNK_BYTES + 1)):
        (folder / "new").write_bytes(data)
        (folder / "new").rename(folder / artifact_of_file(folder / "new").digest)
    return folder


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_whole_files_are_right_and_others_beside_them_do_not_matter(files):
    needed = names(files)
    (files / ("0" * 64)).write_bytes(b"not needed")
    assert check_files(files, lambda: needed) == []


def test_every_damaged_and_every_missing_file_is_named(files):
    needed = names(files)
    empty, small, large = sorted(needed, key=lambda name: (files / name).stat().st_size)
    (files / small).unlink()
    with (files / large).open("r+b") as file:
        file.seek(2 * CHUNK_BYTES)
        file.write(b"y")
    (files / empty).write_bytes(b"more")
    wrong = {
        small: f"file {small} is gone",
        large: f"file {large} is damaged: its content has another digest",
        empty: f"file {empty} is damaged: its content has another digest",
    }
    assert check_files(files, lambda: needed) == [wrong[name] for name in sorted(needed)]


def test_what_cannot_be_read_is_said(files):
    name = "a" * 64
    (files / name).mkdir()
    assert check_files(files, lambda: {name}) == [f"file {name} cannot be read: Is a directory"]


def test_a_file_that_is_let_go_while_it_is_checked_is_no_problem(files):
    gone, answers = "b" * 64, [{"b" * 64, *names(files)}, names(files)]
    assert not (files / gone).exists()
    assert check_files(files, lambda: answers.pop(0)) == []
    assert answers == []
