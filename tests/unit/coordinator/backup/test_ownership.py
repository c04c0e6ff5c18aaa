"""A data directory and a record find each other again, and refuse strangers; see tests/integration/test_moving.py."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from covey.coordinator.backup import ownership
from covey.coordinator.backup.ownership import SETTING, check_folder, check_record, note_record, read_note, take_over
from covey.errors import Conflict
from covey.storage.sql.copy import copy_store
from covey.storage.sql.store import open_store


@pytest.fixture
def data_dir(tmp_path):
    made = tmp_path / "data"
    made.mkdir()
    return made


@pytest.fixture
def database(tmp_path):
    return f"sqlite:///{tmp_path}/record.db"


def start(url, data_dir):
    """As a coordinator that ends at once; the record's id."""
    with closing(open_store(url)) as store:
        take_over(store, data_dir, "me")
        return store.setting(SETTING)


def known(data_dir):
    return json.loads((data_dir / "record.json").read_text())


def with_models(data_dir):
    artifacts = data_dir / "files" / "artifacts"
    artifacts.mkdir(parents=True)
    (artifacts / ("0" * 64)).write_text("model")


def test_the_first_start_draws_an_id_that_the_next_ones_find(database, data_dir):
    first = start(database, data_dir)
    assert len(first) == 32
    assert known(data_dir) == {"lease": 1, "record": first}
    assert start(database, data_dir) == first
    assert known(data_dir) == {"lease": 2, "record": first}


def test_another_record_is_refused_however_new_it_is(database, data_dir, tmp_path):
    start(database, data_dir)
    other = f"sqlite:///{tmp_path}/staging.db"
    (tmp_path / "staging").mkdir()
    for _ in range(4):
        start(other, tmp_path / "staging")
    for _ in range(2):
        with pytest.raises(Conflict, match=r"holds another record than that of .*is --store \(COVEY_STORE\) missing"):
            start(other, data_dir)
    with closing(open_store(other)) as store:
        assert store.database.lease_number() == 4
    assert known(data_dir)["lease"] == 1


def test_a_copy_in_another_database_is_the_same_record_and_what_it_was_copied_from_an_old_one(
    database, data_dir, tmp_path
):
    first = start(database, data_dir)
    copy = f"sqlite:///{tmp_path}/copy.db"
    copy_store(database, copy)
    assert start(copy, data_dir) == first
    assert start(copy, data_dir) == first
    with pytest.raises(Conflict, match=r"an old copy of it \(lease number 2, the files know 4\): is --store"):
        start(database, data_dir)


def test_a_restored_directory_takes_the_id_of_its_record(database, data_dir, tmp_path):
    first = start(database, data_dir)
    restored = tmp_path / "restored"
    with_models(restored)
    assert start(database, restored) == first
    assert known(restored)["record"] == first


@pytest.mark.parametrize("lease", [1, 2])
def test_an_older_version_s_note_takes_the_record_over_that_is_not_older(database, data_dir, lease):
    with closing(open_store(database)) as store:
        store.acquire_lease("an older version")
    (data_dir / "record.json").write_text(json.dumps({"lease": lease}))
    if lease == 2:
        with pytest.raises(Conflict, match="an old copy of it"):
            start(database, data_dir)
        assert known(data_dir) == {"lease": 2}
    else:
        assert start(database, data_dir) == known(data_dir)["record"] != ""


@pytest.mark.parametrize("before", [None, {"lease": 0}])
def test_a_start_that_was_killed_between_the_two_notes_is_repeated(database, data_dir, monkeypatch, before):
    if before:
        (data_dir / "record.json").write_text(json.dumps(before))

    def power_cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ownership, "note_record", power_cut)
        with pytest.raises(KeyboardInterrupt):
            start(database, data_dir)
    with closing(open_store(database)) as store:
        drawn = store.setting(SETTING)
    assert drawn
    assert start(database, data_dir) == drawn == known(data_dir)["record"]


def test_an_empty_or_older_record_is_refused_however_often_it_comes(data_dir):
    note_record(data_dir, "a", 4)
    for record, number in ((None, 0), ("a", 0), ("a", 3), ("a", 3)):
        with pytest.raises(Conflict, match=r"is --store \(COVEY_STORE\) missing, or another one"):
            check_record(data_dir, record, number)
    assert [path.name for path in data_dir.iterdir()] == ["record.json"]
    check_record(data_dir, "a", 4)
    check_record(data_dir, "a", 6)


def test_models_never_belong_to_a_record_that_no_coordinator_had(data_dir):
    check_record(data_dir, None, 0)
    with_models(data_dir)
    with pytest.raises(Conflict, match=r"this database is empty, but .*artifacts holds models"):
        check_record(data_dir, None, 0)
    check_record(data_dir, None, 1)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"lease": null}', '{"lease": "x"}', b"\xff"])
def test_a_note_that_cannot_be_read_is_said(database, data_dir, text):
    (data_dir / "record.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Conflict, match=r"record\.json cannot be read \(.*names the right database, delete it"):
        start(database, data_dir)


def test_a_note_that_is_no_file_is_said(data_dir):
    (data_dir / "record.json").mkdir()
    with pytest.raises(Conflict, match=r"record\.json cannot be read \(.*Is a directory"):
        read_note(data_dir)


# -- before anything is made


@pytest.mark.parametrize("name", ["record.json", "covey.db", "files"])
def test_a_directory_that_lost_its_keys_does_not_become_a_new_federation(data_dir, name):
    check_folder(data_dir)
    (data_dir / name).mkdir()
    with pytest.raises(Conflict, match=rf"was used \({name}\), but its keys/authority\.key is gone: put keys/ back"):
        check_folder(data_dir)
    (data_dir / "keys").mkdir()
    (data_dir / "keys" / "authority.key").write_text("")
    check_folder(data_dir)


def test_a_restore_that_has_not_ended_is_not_started_on(data_dir):
    (data_dir / "unfinished-restore").mkdir()
    with pytest.raises(Conflict, match=r"was interrupted, or still goes on: give the same command again \(covey"):
        check_folder(data_dir)
