import os
import subprocess
import sys
from pathlib import Path

import pytest

from covey.artifact import CHUNK_BYTES, artifact_of
from covey.errors import DiskFull, LimitExceeded, NotFound, StoreError
from covey.storage.files import artifacts as models
from covey.storage.files.artifacts import ArtifactFiles

SIZE = 2 * CHUNK_BYTES + 10


def chunked(data):
    return [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]


def made(seed, size=SIZE):
    data = bytes([seed]) * size
    return artifact_of(chunked(data)), data


def put(files, seed, size=SIZE):
    artifact, data = made(seed, size)
    spool = files.begin(artifact)
    for chunk in chunked(data):
        spool.write(chunk)
    spool.finish()
    return artifact


def names(files, folder):
    return sorted(path.name for path in (files.root / folder).iterdir())


@pytest.fixture
def files(tmp_path):
    return ArtifactFiles(tmp_path / "files")


@pytest.mark.parametrize(
    "digest", ["", "..", "../../etc/passwd", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 63 + "/", "a" * 64 + "\n"]
)
def test_only_digests_name_files(files, digest):
    for ask in (files.path, files.has, lambda d: files.release([d])):
        with pytest.raises(NotFound, match="not a digest"):
            ask(digest)


def test_a_released_file_is_written_over(files):
    old = put(files, 1)
    inode = files.path(old.digest).stat().st_ino
    files.release([old.digest])
    assert not files.has(old.digest)
    new, data = made(2)
    assert files.offset(new) == 0
    spool = files.begin(new)
    assert spool.offset == 0
    for chunk in chunked(data):
        spool.write(chunk)
    assert spool.finish().read_bytes() == data
    assert files.path(new.digest).stat().st_ino == inode
    assert names(files, "free") == []


def test_a_recycled_file_with_the_right_bytes_in_wrong_hands_is_measured(files):
    """Stale content counts for what it is: here the old file's first chunk is that of the new one too."""
    old = put(files, 1)
    files.release([old.digest])
    data = bytes([1]) * CHUNK_BYTES + bytes([2]) * (SIZE - CHUNK_BYTES)
    new = artifact_of(chunked(data))
    (files.root / "free").iterdir().__next__().rename(files.root / "spool" / f"{new.digest}.part")
    again = ArtifactFiles(files.root)
    assert again.offset(new) == CHUNK_BYTES
    assert again.begin(new).offset == CHUNK_BYTES


def test_a_part_of_another_size_is_brought_to_size(files):
    artifact, data = made(1)
    part = files.root / "spool" / f"{artifact.digest}.part"
    for content in (data[:CHUNK_BYTES], data + b"more", data[: CHUNK_BYTES + 5]):
        part.write_bytes(content)
        again = ArtifactFiles(files.root)
        spool = again.begin(artifact)
        assert part.stat().st_size == SIZE
        assert spool.offset == (SIZE if len(content) > SIZE else CHUNK_BYTES)
        spool.abandon()


def test_a_file_that_is_here_is_not_received_again(files):
    artifact = put(files, 1)
    assert files.offset(artifact) == SIZE
    spool = files.begin(artifact)
    assert spool.finished
    assert spool.finish() == files.path(artifact.digest)
    spool.abandon()
    assert files.has(artifact.digest)


def test_an_empty_transfer_leaves_nothing(files):
    artifact, _ = made(1)
    files.begin(artifact).abandon()
    assert names(files, "spool") == []
    assert files.offset(artifact) == 0


def test_broken_transfers_are_bounded(files, monkeypatch):
    monkeypatch.setattr(models, "MAX_IDLE_PARTS", 3)
    size = CHUNK_BYTES + 1
    for seed in range(5):
        artifact, data = made(seed, size)
        spool = files.begin(artifact)
        spool.write(data[:CHUNK_BYTES])
        spool.abandon()
    kept = {made(seed, size)[0].digest for seed in (2, 3, 4)}
    assert {name.removesuffix(".part") for name in names(files, "spool")} == kept
    assert files.offset(made(0, size)[0]) == 0
    assert files.offset(made(4, size)[0]) == CHUNK_BYTES


# -- the worker's files


def test_a_scratch_file_is_adopted_once_and_again(files):
    artifact, data = made(1)
    path = files.scratch(SIZE)
    assert not path.exists()
    path.write_bytes(data)
    assert files.adopt(path, artifact) == files.path(artifact.digest)
    assert files.path(artifact.digest).read_bytes() == data
    assert files.adopt(path, artifact) == files.path(artifact.digest)
    path.write_bytes(data)
    files.adopt(path, artifact)
    assert not path.exists()
    assert names(files, "free") == [f"{SIZE}-0"]
    assert files.bytes_used == 2 * SIZE


def test_what_a_power_cut_left_of_a_file_that_was_not_synced_is_dropped(tmp_path):
    artifact, data = made(1)
    files = ArtifactFiles(tmp_path / "files")
    path = files.scratch(SIZE)
    path.write_bytes(data)
    adopted = files.adopt(path, artifact, durable=False)
    assert files.check(artifact.digest)
    adopted.write_bytes(data[:5] + bytes(SIZE - 5))  # blocks that were never written
    assert not ArtifactFiles(tmp_path / "files").check(artifact.digest)
    assert not adopted.exists()


def test_a_scratch_file_may_be_a_recycled_one(files):
    files.release([put(files, 1).digest])
    path = files.scratch(SIZE)
    assert path.stat().st_size == SIZE
    files.discard(path)
    files.discard(path)
    assert names(files, "free") == [f"{SIZE}-1"]


def test_scratch_files_have_names_of_their_own(files):
    assert len({files.scratch(0) for _ in range(20)}) == 20


def test_what_is_not_the_announced_file_is_not_adopted(files):
    artifact, data = made(1)
    path = files.scratch(SIZE)
    with pytest.raises(NotFound, match="gone"):
        files.adopt(path, artifact)
    path.write_bytes(data[:-1])
    with pytest.raises(StoreError, match=f"{SIZE - 1} bytes"):
        files.adopt(path, artifact)
    assert not files.has(artifact.digest)


# -- cleaning up


def test_after_a_crash_only_what_is_needed_stays(files):
    kept, dropped = put(files, 1), put(files, 2)
    files.scratch(5).write_bytes(b"12345")
    broken, data = made(3)
    files.begin(broken).write(data[:CHUNK_BYTES])
    again = ArtifactFiles(files.root)
    again.clean({kept.digest})
    assert again.has(kept.digest)
    assert not again.has(dropped.digest)
    assert names(again, "scratch") == []
    assert again.offset(broken) == CHUNK_BYTES
    assert again.bytes_used == 3 * SIZE
    assert names(again, "free") == [f"{SIZE}-0"]


def test_release_passes_over_what_is_not_here(files):
    artifact = put(files, 1)
    files.release([artifact.digest, artifact.digest, made(2)[0].digest])
    assert not files.has(artifact.digest)


# -- quota and disk


def test_the_quota_is_checked_before_anything_is_allocated(tmp_path):
    files = ArtifactFiles(tmp_path, quota_bytes=2 * SIZE)
    put(files, 1)
    live = files.begin(made(2)[0])
    with pytest.raises(DiskFull, match=f"quota of {2 * SIZE} bytes"):
        files.begin(made(3)[0])
    with pytest.raises(DiskFull, match="quota"):
        files.scratch(SIZE)
    with pytest.raises(LimitExceeded, match="more than the quota"):
        files.scratch(2 * SIZE + 1)
    assert names(files, "spool") == [f"{made(2)[0].digest}.part"]
    assert files.bytes_used == 2 * SIZE
    live.abandon()
    put(files, 3)


def test_free_files_and_broken_transfers_make_room(tmp_path):
    files = ArtifactFiles(tmp_path, quota_bytes=3 * SIZE)
    files.release([put(files, 1).digest])
    broken, data = made(2, SIZE + 1)
    spool = files.begin(broken)
    spool.write(data[:CHUNK_BYTES])
    spool.abandon()
    put(files, 3, SIZE + 2)
    assert names(files, "free") == []
    assert names(files, "spool") == [f"{broken.digest}.part"]
    put(files, 4, SIZE - 3)
    put(files, 5, 3)
    assert names(files, "spool") == []
    assert files.offset(broken) == 0


def test_files_of_an_earlier_start_count(tmp_path):
    put(ArtifactFiles(tmp_path), 1)
    files = ArtifactFiles(tmp_path, quota_bytes=SIZE + 1)
    assert files.bytes_used == SIZE
    with pytest.raises(DiskFull):
        files.begin(made(2, 2)[0])


ON_A_FULL_DISK = """
import sys
from pathlib import Path
from covey.artifact import artifact_of
from covey.errors import StoreError
from covey.storage.files.artifacts import ArtifactFiles
root, limit = Path(sys.argv[1]), int(sys.argv[2])
if limit:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
files = ArtifactFiles(root)
chunk = bytes(1 << 20)
small, large = artifact_of([chunk]), artifact_of([chunk] * 8)
def receive(artifact):
    spool = files.begin(artifact)
    while not spool.complete:
        spool.write(chunk)
    return spool.finish()
files.release([receive(artifact_of([chunk, chunk])).name])
try:
    receive(large)
except StoreError as error:
    print(error)
else:
    sys.exit("a full disk was not noticed")
assert not files.has(large.digest), "half-written under a final name"
assert not list((root / "spool").iterdir()), "left a part behind"
assert receive(small).stat().st_size == 1 << 20, "what fits must still go"
"""


def run_on_a_full_disk(root, limit):
    command = [sys.executable, "-c", ON_A_FULL_DISK, str(root), str(limit)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_file_beyond_the_limit_of_the_file_system_is_refused_whole(tmp_path):
    done = run_on_a_full_disk(tmp_path, 4 << 20)
    assert done.returncode == 0, done.stderr
    assert "no room for" in done.stdout


@pytest.fixture
def tiny_disk(tmp_path):
    where = tmp_path / "tiny"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(where)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield where
    subprocess.run(["umount", str(where)], check=True)


def test_a_full_disk_is_noticed_before_anything_is_sent(tiny_disk: Path):
    done = run_on_a_full_disk(tiny_disk, 0)
    assert done.returncode == 0, done.stderr
    assert "no room for" in done.stdout
