from __future__ import annotations

import json
import subprocess
import sys

import pytest

from covey.coordinator.config import sqlite_url
from covey.errors import SpecError
from covey.simulation.data_dir import enrol, open_relaxed, prepared_folder, remove_scratch
from covey.storage.sql.store import open_store
from covey.wire.identities.signing import SigningKey


def keys_of(*names):
    return {name: SigningKey.generate() for name in names}


def test_a_new_folder_and_an_earlier_simulation_s_are_taken(tmp_path):
    for nodes in (3, 5):
        folder = prepared_folder(tmp_path / "deep" / "folder", {"nodes": nodes})
        assert json.loads((folder / "simulation.json").read_text()) == {"nodes": nodes}


def test_a_coordinator_s_folder_is_refused_and_left_as_it_is(tmp_path):
    open_store(sqlite_url(tmp_path)).close()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SpecError, match="a coordinator's record"):
        prepared_folder(tmp_path, {})
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SpecError, match="holds files"):
        prepared_folder(tmp_path, {})


def test_scratch_goes_and_the_record_stays(tmp_path):
    folder = prepared_folder(tmp_path / "folder", {})
    (folder / "nodes").mkdir()
    (folder / "nodes" / "x").write_text("")
    (folder / "covey.db").write_text("")
    remove_scratch(folder)
    assert {path.name for path in folder.iterdir()} == {"simulation.json", "covey.db"}


def test_just_the_simulation_s_nodes_are_active_with_their_new_keys(tmp_path):
    store = open_relaxed(tmp_path)
    try:
        first = keys_of("a", "b", "c")
        enrol(store, first, 1.0)
        again = keys_of("b", "d")
        enrol(store, again, 2.0)
        found = {record.node: record for record in store.nodes()}
        assert {name: record.state for name, record in found.items()} == {
            "a": "left",
            "b": "active",
            "c": "left",
            "d": "active",
        }
        assert found["b"].signing_key == again["b"].public_bytes
        assert store.signing_key(first["b"].key_id) == first["b"].public_bytes  # for audits of the earlier run
    finally:
        store.close()


def test_the_store_does_not_wait_for_the_disk(tmp_path):
    store = open_relaxed(tmp_path)
    try:
        with store.database.reading() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 0
    finally:
        store.close()


def test_a_simulation_s_own_process_never_imports_torch():
    program = "import sys, covey.simulation.simulation, covey.cli.commands.simulate; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
