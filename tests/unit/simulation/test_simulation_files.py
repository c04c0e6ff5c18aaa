from __future__ import annotations

import pytest

from covey.artifact import Artifact, artifact_of, artifact_of_file
from covey.errors import CorruptChunk, NotFound, StoreError
from covey.node.updates import FinishedUpdate
from covey.simulation.files import CoordinatorFiles, MemoryStore, NodeFiles


@pytest.fixture
def coordinator(tmp_path):
    return CoordinatorFiles(tmp_path / "files")


def node(tmp_path, coordinator, name="n0"):
    folder = tmp_path / "nodes"
    folder.mkdir(exist_ok=True)
    return NodeFiles(folder, name, coordinator)


def written(files, content):
    path = files.scratch(len(content))
    path.write_bytes(content)
    return path, artifact_of_file(path)


def test_a_handed_over_file_stays_with_both_until_each_lets_go(tmp_path, coordinator):
    mine = node(tmp_path, coordinator)
    artifact = adopted(mine, b"update")
    mine.hand_over(artifact)
    assert coordinator.path(artifact.digest).read_bytes() == b"update"
    coordinator.release([artifact.digest])
    assert not coordinator.has(artifact.digest)
    assert mine.path(artifact.digest).read_bytes() == b"update"
    mine.release([artifact.digest])
    assert not mine.has(artifact.digest)


def adopted(files, content):
    path, artifact = written(files, content)
    files.adopt(path, artifact)
    return artifact


def test_a_dropped_file_is_never_written_over(tmp_path, coordinator):
    mine = node(tmp_path, coordinator)
    artifact = adopted(mine, b"update")
    mine.hand_over(artifact)
    coordinator.release([artifact.digest])
    fresh = coordinator.scratch(len(b"update"))
    assert not fresh.exists()
    fresh.write_bytes(b"other!")
    assert mine.path(artifact.digest).read_bytes() == b"update"


def test_two_nodes_with_the_same_bytes_do_not_share_their_fate(tmp_path, coordinator):
    first, second = node(tmp_path, coordinator, "n0"), node(tmp_path, coordinator, "n1")
    artifact = adopted(first, b"same")
    assert adopted(second, b"same") == artifact
    first.release([artifact.digest])
    assert second.path(artifact.digest).read_bytes() == b"same"
    assert not first.has(artifact.digest)


def test_a_node_reads_models_where_the_coordinator_has_them_and_cannot_drop_them(tmp_path, coordinator):
    model = adopted(coordinator, b"model")
    mine = node(tmp_path, coordinator)
    assert mine.has(model.digest)
    assert mine.path(model.digest) == coordinator.path(model.digest)
    mine.release([model.digest])
    assert coordinator.has(model.digest)


def test_a_file_that_is_gone_or_of_another_size_is_not_adopted(tmp_path, coordinator):
    mine = node(tmp_path, coordinator)
    path, artifact = written(mine, b"update")
    wrong = Artifact(artifact.digest, artifact.size_bytes + 1, artifact.chunk_sha256)
    for files in (mine, coordinator):
        with pytest.raises(StoreError, match="6 bytes, its artifact 7"):
            files.adopt(path, wrong)
    path.unlink()
    with pytest.raises(NotFound, match="is gone"):
        mine.adopt(path, artifact)


def test_adopting_twice_keeps_one_file(tmp_path, coordinator):
    mine = node(tmp_path, coordinator)
    artifact = adopted(mine, b"update")
    again, _ = written(mine, b"update")
    mine.adopt(again, artifact)
    assert not again.exists()
    assert mine.path(artifact.digest).read_bytes() == b"update"


def test_a_virtual_node_s_record_forgets_what_was_delivered():
    store = MemoryStore()
    update = FinishedUpdate("run", 1, "base", "d" * 64, b"statement", b"signature", ())
    store.save(update, {})
    assert store.finished("run", 1, 1, "base") == update
    store.delivered(update)
    assert store.finished("run", 1, 1, "base") is None


def test_what_comes_along_must_be_the_file(tmp_path, coordinator):
    mine, artifact = node(tmp_path, coordinator), artifact_of([b"small"])
    with pytest.raises(CorruptChunk):
        mine.put(artifact, b"evil!")
    assert (mine.has(artifact.digest), mine.offset(artifact)) == (False, 0)
    assert mine.put(artifact, b"small").read_bytes() == b"small"
    assert mine.offset(artifact) == 5
    assert {path.name for path in (tmp_path / "nodes").iterdir()} == {f"n0-{artifact.digest}"}
