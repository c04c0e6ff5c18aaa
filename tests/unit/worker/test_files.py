import itertools
import threading
from pathlib import Path

import pytest
import torch

from covey.artifact import CHUNK_BYTES, artifact_of_file
from covey.worker.files.writing import DEPTH, ArtifactWriter, Overlap, raw_bytes


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES - 7])
@pytest.mark.parametrize("piece", [1000, CHUNK_BYTES, 5 * CHUNK_BYTES])
def test_a_file_is_written_over_another_and_hashed_as_it_is(tmp_path: Path, size: int, piece: int) -> None:
    path, content = tmp_path / "file", bytes(itertools.islice(itertools.cycle(range(251)), size))
    path.write_bytes(b"\xff" * (2 * CHUNK_BYTES))
    with ArtifactWriter(path) as writer:
        for start in range(0, size, piece):
            writer.write(memoryview(content)[start : start + piece])
        artifact = writer.close()
    assert path.read_bytes() == content
    assert artifact == artifact_of_file(path)


def test_raw_bytes_of_every_shape_and_dtype() -> None:
    assert bytes(raw_bytes(torch.tensor(7, dtype=torch.int64))) == (7).to_bytes(8, "little")
    assert bytes(raw_bytes(torch.tensor([[True, False]]))) == b"\1\0"
    assert bytes(raw_bytes(torch.tensor([1.0], dtype=torch.bfloat16))) == b"\x80\x3f"
    assert bytes(raw_bytes(torch.empty(0))) == b""


def test_work_is_done_in_order_and_bounded() -> None:
    gate, done = threading.Event(), []
    with Overlap() as overlap:
        overlap.submit(lambda: done.append(0) if gate.wait(10) else None)
        for i in range(1, DEPTH):
            overlap.submit(lambda i=i: done.append(i))  # type: ignore[misc]
        assert done == []
        gate.set()
        for i in range(DEPTH, 20):
            overlap.submit(lambda i=i: done.append(i))  # type: ignore[misc]
            assert len(done) > i - DEPTH
    assert done == list(range(20))


def test_what_fails_in_the_thread_fails_the_caller() -> None:
    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), Overlap() as overlap:
        overlap.submit(fail)


def test_one_piece_is_written_by_the_caller_and_not_after_an_error() -> None:
    threads: list[str] = []
    with Overlap() as overlap:
        overlap.submit(lambda: threads.append(threading.current_thread().name))
        assert threads == []
    assert threads == [threading.current_thread().name]

    def fail() -> None:
        with Overlap() as overlap:
            overlap.submit(lambda: threads.append("too late"))
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert len(threads) == 1
