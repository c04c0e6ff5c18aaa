import hashlib
import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.artifact import CHUNK_BYTES, Artifact, artifact_of, artifact_of_file, chunk_count, read_chunks, valid_prefix
from covey.errors import CorruptChunk, LimitExceeded

SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 9]


def pieces(data):
    return [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]


@pytest.mark.parametrize("size", SIZES)
def test_the_digest_is_the_hash_of_the_chunks_hashes(tmp_path, size):
    data = os.urandom(size)
    artifact = artifact_of(pieces(data))
    table = b"".join(hashlib.sha256(piece).digest() for piece in pieces(data))
    assert artifact == Artifact(hashlib.sha256(table).hexdigest(), size, table)
    path = tmp_path / "file"
    path.write_bytes(data)
    assert artifact_of_file(path) == artifact
    artifact.validate(size)
    for index, piece in enumerate(pieces(data)):
        assert artifact.chunk_size(index) == len(piece)
        assert artifact.chunk_digest(index) == hashlib.sha256(piece).digest()
    assert chunk_count(size) == len(pieces(data))


def test_reading_stops_at_the_limit_and_at_the_end():
    data = os.urandom(2 * CHUNK_BYTES + 9)
    for limit in (0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, len(data), len(data) + 5, None):
        got = b"".join(bytes(view) for view in read_chunks(io.BytesIO(data), limit))
        assert got == data[:limit]


def test_more_than_is_accepted_is_refused():
    artifact = artifact_of([b"12345"])
    artifact.validate(5)
    with pytest.raises(LimitExceeded, match="announced 5 bytes, at most 4"):
        artifact.validate(4)
    with pytest.raises(LimitExceeded):
        Artifact(artifact.digest, -1, artifact.chunk_sha256).validate(10)


@given(st.binary(max_size=100), st.integers(0, 3 * CHUNK_BYTES), st.text("0123456789abcdef", max_size=64))
def test_a_table_that_does_not_belong_is_refused(table, size, digest):
    right = hashlib.sha256(table).hexdigest() == digest and len(table) == 32 * chunk_count(size)
    assert not right
    with pytest.raises(CorruptChunk):
        Artifact(digest, size, table).validate(3 * CHUNK_BYTES)
    if len(table) != 32 * chunk_count(size):
        with pytest.raises(CorruptChunk, match="does not fit"):
            Artifact(hashlib.sha256(table).hexdigest(), size, table).validate(3 * CHUNK_BYTES)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_right_at_the_start_of_a_file(tmp_path, size):
    path, data = tmp_path / "file", os.urandom(size)
    artifact = artifact_of(pieces(data))
    assert valid_prefix(path, artifact) == 0
    path.write_bytes(data + b"rest of an older file")
    assert valid_prefix(path, artifact) == size
    for length in {0, size // 2, max(0, size - 1)} - {size}:
        path.write_bytes(data[:length])
        assert valid_prefix(path, artifact) == length // CHUNK_BYTES * CHUNK_BYTES


@given(wrong=st.integers(0, 3 * CHUNK_BYTES + 8))
def test_a_wrong_byte_ends_the_valid_prefix_at_its_chunk(tmp_path_factory, wrong):
    data = bytearray(3 * CHUNK_BYTES + 9)
    artifact = artifact_of(pieces(bytes(data)))
    data[wrong] = 1
    path = tmp_path_factory.getbasetemp() / "wrong-byte"
    path.write_bytes(data)
    assert valid_prefix(path, artifact) == wrong // CHUNK_BYTES * CHUNK_BYTES
