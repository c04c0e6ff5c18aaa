import errno
import os
import re
import shutil
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.artifact import CHUNK_BYTES, artifact_of, valid_prefix
from covey.errors import CorruptChunk, DiskFull, StoreError, TransferError
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.files.spool import disk_errors

DATA = os.urandom(3 * CHUNK_BYTES + 1000)


def chunked(data, start=0):
    return [data[at : at + CHUNK_BYTES] for at in range(start, len(data), CHUNK_BYTES)]


ARTIFACT = artifact_of(chunked(DATA))


@pytest.fixture
def files(tmp_path):
    return ArtifactFiles(tmp_path / "files")


def test_chunks_become_a_file(files):
    spool = files.begin(ARTIFACT)
    for number, chunk in enumerate(chunked(DATA)):
        assert spool.offset == number * CHUNK_BYTES
        assert not spool.complete
        spool.write(memoryview(chunk))
    assert spool.complete
    assert not files.has(ARTIFACT.digest)
    path = spool.finish()
    assert path == files.path(ARTIFACT.digest)
    assert path.read_bytes() == DATA
    assert spool.finish() == path
    assert spool.finished


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES])
def test_odd_sizes(files, size):
    data = DATA[:size]
    artifact = artifact_of(chunked(data))
    spool = files.begin(artifact)
    for chunk in chunked(data):
        spool.write(chunk)
    assert spool.finish().read_bytes() == data


def test_a_corrupt_chunk_is_refused_and_not_written(files):
    spool = files.begin(ARTIFACT)
    first, second, *_ = chunked(DATA)
    spool.write(first)
    for wrong in (first, second[:-1], second + b"x", b"", bytes([second[0] ^ 1]) + second[1:]):
        with pytest.raises(CorruptChunk, match="chunk 1"):
            spool.write(wrong)
    assert spool.offset == CHUNK_BYTES
    spool.write(second)
    assert spool.offset == 2 * CHUNK_BYTES


def test_nothing_comes_after_the_end(files):
    spool = files.begin(ARTIFACT)
    for chunk in chunked(DATA):
        spool.write(chunk)
    for extra in (b"x", b""):
        with pytest.raises(CorruptChunk):
            spool.write(extra)
    spool.finish()
    with pytest.raises(CorruptChunk):
        spool.write(b"x")


def test_an_unfinished_file_gets_no_name(files):
    spool = files.begin(ARTIFACT)
    spool.write(chunked(DATA)[0])
    with pytest.raises(TransferError, match=rf"after {CHUNK_BYTES} of {len(DATA)} bytes"):
        spool.finish()
    assert not files.has(ARTIFACT.digest)


def test_what_came_of_a_file_is_still_known_when_the_whole_one_goes(files, tmp_path):
    spool = files.begin(ARTIFACT)
    spool.write(chunked(DATA)[0])
    spool.abandon()
    made = files.scratch(0)
    made.write_bytes(DATA)
    files.adopt(made, ARTIFACT)
    files.release([ARTIFACT.digest])
    assert (files.unfinished(), files.offset(ARTIFACT)) == ({ARTIFACT.digest}, CHUNK_BYTES)
    files.forget([ARTIFACT.digest])
    assert files.unfinished() == set()


def test_going_back_and_on(files):
    spool = files.begin(ARTIFACT)
    for chunk in chunked(DATA)[:3]:
        spool.write(chunk)
    for wrong in (-CHUNK_BYTES, 1, CHUNK_BYTES + 1, 4 * CHUNK_BYTES, len(DATA)):
        with pytest.raises(TransferError, match="cannot go on"):
            spool.rewind(wrong)
    spool.rewind(3 * CHUNK_BYTES)
    spool.rewind(CHUNK_BYTES)
    for chunk in chunked(DATA, CHUNK_BYTES):
        spool.write(chunk)
    spool.rewind(len(DATA))
    assert spool.finish().read_bytes() == DATA


def test_whoever_comes_later_takes_over(files):
    first = files.begin(ARTIFACT)
    first.write(chunked(DATA)[0])
    second = files.begin(ARTIFACT)
    assert second.offset == CHUNK_BYTES
    with pytest.raises(TransferError, match="took over"):
        first.write(chunked(DATA)[1])
    with pytest.raises(TransferError, match="took over"):
        first.finish()
    first.abandon()
    for chunk in chunked(DATA, CHUNK_BYTES):
        second.write(chunk)
    assert second.finish().read_bytes() == DATA


def test_many_writers_of_one_file_at_once_leave_one_right_file(files):
    errors = []

    def receive():
        try:
            spool = files.begin(ARTIFACT)
            spool.rewind(spool.offset)
            for chunk in chunked(DATA, spool.offset):
                spool.write(chunk)
                spool.write_back()
            spool.finish()
        except TransferError as error:
            errors.append(error)

    threads = [threading.Thread(target=receive) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) < len(threads)
    assert files.path(ARTIFACT.digest).read_bytes() == DATA
    assert files.bytes_used == len(DATA) * len([*(files.root / "free").iterdir(), ARTIFACT])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["write", "corrupt", "abandon", "again", "restart", "sync"]), max_size=14))
def test_any_history_ends_in_the_right_bytes(tmp_path_factory, history):
    root = tmp_path_factory.mktemp("history")
    files = ArtifactFiles(root)
    spool = files.begin(ARTIFACT)
    reached = 0
    for what in history:
        if what == "restart":
            spool.abandon()
            files = ArtifactFiles(root)
        if what in ("restart", "again", "abandon"):
            spool.abandon()
            assert files.offset(ARTIFACT) == reached
            spool = files.begin(ARTIFACT)
        elif what == "sync":
            spool.write_back()
        elif what == "corrupt":
            with pytest.raises(CorruptChunk):
                spool.write(os.urandom(1000))
        elif reached < len(DATA):
            spool.write(DATA[reached : reached + CHUNK_BYTES])
            reached = min(len(DATA), reached + CHUNK_BYTES)
        assert spool.offset == reached
    for chunk in chunked(DATA, reached):
        spool.write(chunk)
    assert spool.finish().read_bytes() == DATA
    shutil.rmtree(root)


WRITE_AND_HANG = """
import sys
from pathlib import Path
from covey.artifact import artifact_of_file, CHUNK_BYTES
from covey.storage.files.artifacts import ArtifactFiles
source, root = map(Path, sys.argv[1:])
spool = ArtifactFiles(root).begin(artifact_of_file(source))
data = source.read_bytes()
for at in (0, CHUNK_BYTES):
    spool.write(data[at : at + CHUNK_BYTES])
print("written", flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_wrote_is_found_again(tmp_path):
    source, root = tmp_path / "source", tmp_path / "files"
    source.write_bytes(DATA)
    command = [sys.executable, "-c", WRITE_AND_HANG, str(source), str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        child.kill()
    files = ArtifactFiles(root)
    files.clean(referenced=set())
    assert files.offset(ARTIFACT) == 2 * CHUNK_BYTES
    spool = files.begin(ARTIFACT)
    for chunk in chunked(DATA, spool.offset):
        spool.write(chunk)
    assert spool.finish().read_bytes() == DATA


RECEIVE = """
import sys
from pathlib import Path
from covey.artifact import artifact_of_file, read_chunks
from covey.storage.files.artifacts import ArtifactFiles
source, root = map(Path, sys.argv[1:])
spool = ArtifactFiles(root).begin(artifact_of_file(source))
with source.open("rb", buffering=0) as file:
    for chunk in read_chunks(file):
        spool.write(chunk)
spool.finish()
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_synced_before_renamed_before_the_folder_is_synced(tmp_path):
    source, root, trace = tmp_path / "source", tmp_path / "files", tmp_path / "trace"
    source.write_bytes(DATA)
    command = ["strace", "-f", "-y", "-o", str(trace), "-e", "trace=fsync,fdatasync,rename,pwrite64"]
    done = subprocess.run(
        [*command, sys.executable, "-c", RECEIVE, str(source), str(root)], capture_output=True, text=True, check=False
    )
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    text = trace.read_text()
    calls = [
        r"pwrite64\(\d+<[^>]*spool/\w+\.part>.*= 1000$",
        r"f(data)?sync\(\d+<[^>]*spool/\w+\.part>\)\s+= 0",
        r"rename\(\"[^\"]*spool/\w+\.part\", \"[^\"]*artifacts/\w+\"\)\s+= 0",
        r"fsync\(\d+<[^>]*artifacts>\)\s+= 0",
    ]
    firsts = [re.search(call, text, re.MULTILINE) for call in calls]
    places = [first.start() for first in firsts if first is not None]
    assert len(places) == len(calls)
    assert places == sorted(places)


def test_a_full_disk_is_said_and_told_from_other_failures(tmp_path):
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        with pytest.raises(DiskFull, match="free space there"), disk_errors(tmp_path):
            raise OSError(number, "no")
    with pytest.raises(StoreError, match="Permission denied"), disk_errors(tmp_path):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def test_after_a_failed_sync_everything_is_sent_again(files):
    """The kernel forgets a page that it could not write: what the file seems to hold is not on the disk."""
    spool = files.begin(ARTIFACT)
    spool.write(chunked(DATA)[0])
    read_end, write_end = os.pipe()
    kept = os.dup(spool._fd)
    os.dup2(write_end, spool._fd)  # a pipe cannot be synced
    with pytest.raises(StoreError):
        spool.write_back()
    os.dup2(kept, spool._fd)
    for fd in (kept, read_end, write_end):
        os.close(fd)
    with pytest.raises(StoreError, match="sent again"):
        spool.write(chunked(DATA)[1])
    spool.abandon()
    assert files.offset(ARTIFACT) == 0
    assert valid_prefix(files.root / "spool" / f"{ARTIFACT.digest}.part", ARTIFACT) == 0
