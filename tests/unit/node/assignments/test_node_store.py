"""A node's own record: what it finished, and what it keeps of each run; also as earlier versions wrote it."""

import base64
import json
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from covey import messages as msg
from covey.artifact import artifact_of, artifact_to_json
from covey.errors import StoreError
from covey.node.assignments.record import local_state
from covey.node.assignments.record.journal import Journal
from covey.node.assignments.record.local_state import LocalStates, RunStates
from covey.node.assignments.record.store import NodeStore
from covey.node.updates import FinishedUpdate, HeldPart
from covey.parts import PartFile
from covey.simulation.files import MemoryStore


def artifact(name):
    return artifact_of([name.encode()])


def update(run="a", number=1, **fields):
    parts = (PartFile("model", "none", artifact(f"{run} {number}")),)
    made = FinishedUpdate(run, number, "base", f"digest {run} {number}", b"statement", b"signature", parts)
    return replace(made, **fields)


@pytest.fixture(params=["on disk", "in memory"])
def store(request, tmp_path):
    return NodeStore(tmp_path) if request.param == "on disk" else MemoryStore()


def test_the_newest_finished_update_of_each_run_is_found(store):
    for finished in (update("a", 1), update("b", 1), update("a", 2), update("c", 1, phase=2)):
        store.save(finished, {}, {})
    assert store.finished("a", 2, 1, "base") == update("a", 2)
    assert store.finished("b", 1, 1, "base") == update("b", 1)
    for missing in (("a", 1, 1, "base"), ("a", 2, 2, "base"), ("a", 2, 1, "other"), ("c", 1, 1, "base")):
        assert store.finished(*missing) is None
    store.drop_update("a")
    assert store.finished("a", 2, 1, "base") is None


def test_files_are_needed_until_an_update_is_delivered_and_its_state_decided_on(store):
    state = {"momentum": artifact("m")}
    store.save(update("a"), state, {})
    store.save(update("b"), {}, {})
    assert store.needed() == {artifact(text).digest for text in ("a 1", "b 1", "m")}
    store.delivered(update("a"))
    store.delivered(update("b"))
    assert store.needed() == {artifact("m").digest}
    store.settle("a", msg.Feedback("digest a 1", False), 0)
    assert store.needed() == set()


def test_state_follows_the_verdict_on_just_that_update(store):
    old, new = {"momentum": artifact("old")}, {"momentum": artifact("new")}
    store.save(update("a", 1), old, {})
    assert store.settle("a", msg.Feedback("digest a 1", True), 0) == old
    store.save(update("a", 2), new, {})
    for feedback in (msg.Feedback(), msg.Feedback("digest a 1", True), msg.Feedback("digest a 2", False)):
        assert store.settle("a", feedback, 0) == old
    store.save(update("a", 3), new, {})
    assert store.settle("a", msg.Feedback("digest a 3", True), 0) == new


def test_each_run_keeps_its_own_state_until_it_ends(store):
    states = {run: {"momentum": artifact(run)} for run in ("a", "b")}
    for run, state in states.items():
        store.save(update(run), state, {})
    for run, state in states.items():
        assert store.settle(run, msg.Feedback(f"digest {run} 1", True), 0) == state
    store.forget("a")
    assert store.settle("a", msg.Feedback("digest a 1", True), 0) == {}
    assert store.settle("b", msg.Feedback("digest b 1", True), 0) == states["b"]


@pytest.mark.parametrize("delivered", [False, True])
def test_an_update_of_a_run_that_has_ended_goes_but_for_a_private_one(store, delivered):
    held = HeldPart(2, PartFile("late", "none", artifact("held")), "layout")
    for update_of_run in (update("a", held=(held,)), update("b", private=True)):
        store.save(update_of_run, {}, {})
        if delivered:
            store.delivered(update_of_run)
    for run in ("a", "b", "never heard of"):
        store.forget(run)
    assert store.finished("a", 1, 1, "base") is None
    assert store.needed() == (set() if delivered else {artifact("b 1").digest})


def test_an_update_of_a_run_that_has_ended_stays_away_after_a_restart(tmp_path):
    store = NodeStore(tmp_path)
    store.save(update("a"), {}, {})
    store.save(update("b", private=True), {}, {})
    store.forget("a")
    store.forget("b")
    assert NodeStore(tmp_path).needed() == {artifact("b 1").digest}


def test_all_of_it_is_there_after_a_restart(tmp_path):
    store = NodeStore(tmp_path)
    state = {"momentum": artifact("m")}
    store.save(update("a", 4, private=True, phase=2), state, {})
    store.save(update("b"), {}, {})
    store.delivered(update("b"))
    again = NodeStore(tmp_path)
    assert again.finished("a", 4, 2, "base") == update("a", 4, private=True, phase=2)
    assert again.finished("b", 1, 1, "base") == update("b", delivered=True)
    assert again.needed() == store.needed()
    assert again.settle("a", msg.Feedback("digest a 4", True), 0) == state
    assert NodeStore(tmp_path).settle("a", msg.Feedback(), 0) == state


def test_a_node_that_has_lost_what_it_kept_of_a_run_says_so_once(tmp_path):
    NodeStore(tmp_path / "before").save(update("a", 4), {"momentum": artifact("m")}, {})
    after = NodeStore(tmp_path / "after")
    with capture_logs() as logs:
        assert after.settle("a", msg.Feedback("digest a 4", True), 5) == {}
        assert after.settle("a", msg.Feedback("digest a 4", True), 5) == {}
        assert after.settle("b", msg.Feedback(), 1) == {}
    assert [(entry["log_level"], entry["run"], entry["round"]) for entry in logs] == [("warning", "a", 5)]


def test_the_oldest_run_s_state_goes_first(tmp_path):
    state = LocalStates(tmp_path)
    for number in range(local_state.MAX_RUNS):
        state.stage(replace(update(f"r{number}"), digest="u"), {"momentum": artifact(f"r{number}")}, {})
    state.settle("r0", msg.Feedback("u", True), 0)
    state.stage(replace(update("new"), digest="u"), {"momentum": artifact("new")}, {})
    for states in (state, LocalStates(tmp_path)):
        assert states.digests() == {artifact(f"r{k}").digest for k in range(16) if k != 1} | {artifact("new").digest}


def test_a_file_of_the_version_that_knew_one_run_is_read(tmp_path):
    files = {"momentum": artifact_to_json(artifact("m"))}
    old = {"run": "a", "accepted": {}, "update": "u", "staged": files}
    (tmp_path / "carried.json").write_text(json.dumps(old))
    assert LocalStates(tmp_path).settle("a", msg.Feedback("u", True), 0) == {"momentum": artifact("m")}
    assert LocalStates(tmp_path).settle("a", msg.Feedback(), 0) == {"momentum": artifact("m")}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"runs": [{"run": "a"}]}', '{"run": "a", "accepted": 1}', '"x"'])
def test_a_damaged_file_of_state_is_said_and_left_as_it_is(tmp_path, text):
    path = tmp_path / "carried.json"
    path.write_text(text)
    with pytest.raises(StoreError, match=r"carried\.json.* move it away to begin anew"):
        LocalStates(tmp_path)
    assert path.read_text() == text
    path.rename(tmp_path / "away")
    assert LocalStates(tmp_path).digests() == set()


def test_a_file_of_state_that_cannot_be_read_is_said(tmp_path):
    (tmp_path / "carried.json").mkdir()
    with pytest.raises(StoreError, match="cannot be read"):
        LocalStates(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "carried.json").write_bytes(b"\xff\xfe")
    with pytest.raises(StoreError, match="cannot be read"):
        LocalStates(tmp_path / "other")


def test_an_empty_file_of_the_version_that_knew_one_run_is_no_run(tmp_path):
    (tmp_path / "carried.json").write_text('{"run": "", "accepted": {}, "update": "", "staged": {}}')
    assert LocalStates(tmp_path)._states.newest_last() == ()


@pytest.mark.parametrize("private", [None, False, True])
def test_an_undelivered_update_of_an_earlier_version_is_found(tmp_path, private):
    kept = artifact("a 1")
    chunks = base64.b64encode(kept.chunk_sha256).decode()
    part = {"name": "model", "codec": "none", "digest": kept.digest, "bytes": kept.size_bytes, "chunks": chunks}
    text = base64.b64encode(b"statement").decode(), base64.b64encode(b"signature").decode()
    old = {"run": "a", "round": 1, "base": "base", "digest": "digest a 1", "statement": text[0], "signature": text[1]}
    old |= {"parts": [part], "delivered": False} | ({} if private is None else {"private": private})
    folder = tmp_path / "journal"
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps(old))
    assert NodeStore(tmp_path).finished("a", 1, 1, "base") == update("a", private=bool(private))


def test_a_damaged_entry_of_the_journal_is_passed_over(tmp_path):
    (tmp_path / "a.json").write_text('{"run": "a"}')
    (tmp_path / "b.json").write_text("half")
    (tmp_path / "c.json").write_text("[]")
    (tmp_path / "d.json").write_text("7")
    journal = Journal(tmp_path)
    assert journal.referenced() == set()
    journal.save(update("a"))
    assert Journal(tmp_path).find("a", 1, 1, "base") == update("a")


@pytest.mark.parametrize("run", ["", "../x", "a/b", "a" * 65])
def test_what_is_no_run_id_names_no_file(tmp_path, run):
    with pytest.raises(StoreError, match="not a run id"):
        Journal(tmp_path).save(update(run))


def test_states_in_memory_are_bounded_too():
    states = RunStates()
    with capture_logs() as logs:
        for number in range(40):
            states.settle(f"r{number}", msg.Feedback(), 0)
    assert [(entry["log_level"], entry["run"]) for entry in logs] == [("warning", f"r{k}") for k in range(24)]
    assert [state.run for state in states.newest_last()] == [f"r{number}" for number in range(24, 40)]
