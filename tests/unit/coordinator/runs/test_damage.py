"""After a restart, the files that a run goes on from are what its record says: on a real store and real files."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from covey.coordinator.runs.steps.damage import RESTORE, check_run, forget_damaged, intact, intact_bytes
from covey.errors import CorruptChunk
from covey.storage.files.artifacts import ArtifactFiles
from covey.testing.store import records as make

RUN = "run-1"


def put(files, text):
    """A small file with this text, as `records` makes them."""
    return files.put(make.artifact(text), text.encode())


def put_version(files, name):
    return [put(files, name), put(files, f"{name} momentum")]


def damage(path, how):
    """As a disk does it: the size stays, or the file is gone."""
    if how == "missing":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.fixture
def record(world):
    """Round 1 is committed, and in round 2 `ada` and `bob` have sent updates of two files each."""
    make.start_run(world.record)
    make.play_round(world.record, RUN, 1)
    world.record.open_round(make.round_record(RUN, 2))
    for node in ("ada", "bob"):
        world.record.record_update(make.update_record(RUN, 2, node))
        for part in ("model", "buffers"):
            put(world.files, f"{RUN} r2 {node} {part}")
    put_version(world.files, f"{RUN} v1")
    return world.record


def after_restart(world):
    """The files as a process sees them that has not read any."""
    return ArtifactFiles(world.folder / "files")


def file_of(world, text):
    return world.files.path(make.artifact(text).digest)


def answers(record, number=2):
    return {update.node: update.verdict for update in record.updates(RUN, number)}


async def test_what_is_whole_stays_as_it_is(world, record):
    assert check_run(record, after_restart(world), RUN, 5.0) == []
    assert answers(record) == {"ada": "received", "bob": "received"}
    assert record.events(run=RUN) == []


@pytest.mark.parametrize("how", ["damaged", "missing"])
@pytest.mark.parametrize("part", ["model", "buffers"])
@pytest.mark.parametrize("is_closing", [False, True])
async def test_an_update_with_a_bad_file_is_asked_for_again(world, record, how, part, is_closing):
    if is_closing:
        record.begin_aggregation(RUN, 2)
    damage(file_of(world, f"{RUN} r2 bob {part}"), how)
    lost = check_run(record, after_restart(world), RUN, 5.0)
    assert [(update.node, update.round) for update in lost] == [("bob", 2)]
    assert answers(record) == {"ada": "received"}
    assert record.round(RUN, 2).state == "collecting"
    (event,) = record.events(run=RUN)
    assert (event.at, event.kind, event.node) == (5.0, "update-lost", "bob")
    assert (event.detail["round"], event.detail["phase"]) == (2, 1)
    assert "asked for it again" in event.detail["reason"]
    assert check_run(record, after_restart(world), RUN, 6.0) == []  # it is told of once


async def test_answers_that_need_no_file_are_left(world, record):
    record.record_outcome(make.outcome_record(RUN, 2, "cyd", "declined"))
    record.record_outcome(replace(make.update_record(RUN, 2, "bob"), verdict="rejected", reason="no"))
    damage(file_of(world, f"{RUN} r2 bob model"), "missing")
    assert check_run(record, after_restart(world), RUN, 5.0) == []
    assert answers(record) == {"ada": "received", "bob": "rejected", "cyd": "declined"}


@pytest.mark.parametrize("how", ["damaged", "missing"])
@pytest.mark.parametrize("name", [f"{RUN} v1", f"{RUN} v1 momentum"])
async def test_without_its_newest_version_a_run_cannot_go_on(world, record, how, name):
    damage(file_of(world, name), how)
    with pytest.raises(CorruptChunk, match=r"the newest version \(1\) is damaged or missing") as caught:
        check_run(record, after_restart(world), RUN, 5.0)
    assert make.artifact(name).digest in str(caught.value)
    assert RESTORE in str(caught.value)


def stateful(record, **changes):
    """Commit round 2 by a step with a state."""
    state = '{"round":2}'
    version = make.version_record(RUN, 2)
    judged = [make.accepted(make.update_record(RUN, 2, "ada"))]
    judged.append(make.update_record(RUN, 2, "bob", verdict="rejected", reason="far"))
    record.begin_aggregation(RUN, 2)
    known = {"state": state, "state_sha256": hashlib.sha256(state.encode()).hexdigest()}
    step = replace(make.commit_step_of(record, version, judged), **known | changes)
    record.commit_step(step, judged, version, bytes_received=1, bytes_sent=1)


async def test_a_state_that_is_the_recorded_one_is_gone_on_from(world, record):
    put_version(world.files, f"{RUN} v2")
    stateful(record)
    assert check_run(record, after_restart(world), RUN, 5.0) == []


async def test_a_state_that_is_another_one_is_not_gone_on_from(world, record):
    put_version(world.files, f"{RUN} v2")
    stateful(record, state_sha256="0" * 64)
    with pytest.raises(CorruptChunk, match="the policy's state after step 2 is not the one that was recorded"):
        check_run(record, after_restart(world), RUN, 5.0)


async def test_versions_that_the_state_refers_to_must_be_whole(world, record):
    put_version(world.files, f"{RUN} v2")
    stateful(record, pinned_versions=(1,))
    assert check_run(record, after_restart(world), RUN, 5.0) == []
    damage(file_of(world, f"{RUN} v1 momentum"), "damaged")
    with pytest.raises(CorruptChunk, match="version 1, which the policy compares with"):
        check_run(record, after_restart(world), RUN, 5.0)


async def test_an_update_that_the_state_refers_to_and_that_is_undecided_is_asked_for_again(world, record):
    put_version(world.files, f"{RUN} v2")
    stateful(record, pinned_updates=(3,))
    record.open_round(make.round_record(RUN, 3))
    record.record_update(make.update_record(RUN, 3, "cyd"))
    assert [update.node for update in check_run(record, after_restart(world), RUN, 5.0)] == ["cyd"]
    assert answers(record, 3) == {}


async def test_when_a_round_is_closed_what_was_damaged_meanwhile_is_asked_for_again(world, record):
    sent, when = record.updates(RUN, 2), "when they were to be used"
    assert forget_damaged(record, after_restart(world), sent, when, 7.0) == []
    assert answers(record) == {"ada": "received", "bob": "received"}
    damage(file_of(world, f"{RUN} r2 ada buffers"), "damaged")
    record.begin_aggregation(RUN, 2)
    assert [update.node for update in forget_damaged(record, after_restart(world), sent, when, 7.0)] == ["ada"]
    assert answers(record) == {"bob": "received"}
    assert record.round(RUN, 2).state == "collecting"
    (event,) = record.events(run=RUN)
    assert (event.at, event.kind, event.node, event.detail["round"]) == (7.0, "update-lost", "ada", 2)
    assert event.detail["reason"].endswith(f"missing {when}: the node is asked for it again")


async def test_a_file_that_is_read_now_is_whole_or_the_error_names_it(world):
    path, artifact = put(world.files, "a model"), make.artifact("a model")
    assert intact(after_restart(world), artifact.digest) == path
    damage(path, "damaged")
    with pytest.raises(CorruptChunk, match="is damaged or missing; restore a backup") as caught:
        intact(after_restart(world), artifact.digest)
    assert str(path) in str(caught.value)
    assert not path.exists()  # nobody may use it


async def test_the_bytes_that_go_into_a_message_are_those_that_were_hashed(world, monkeypatch):
    path, artifact = put(world.files, "a small model"), make.artifact("a small model")
    assert intact_bytes(world.files, artifact) == b"a small model"
    monkeypatch.setattr(world.files, "check", lambda digest: True)  # it was whole a moment ago
    damage(path, "damaged")
    with pytest.raises(CorruptChunk, match="is damaged; restore a backup"):
        intact_bytes(world.files, artifact)
