from hypothesis import given
from hypothesis import strategies as st

from covey.artifact import CHUNK_BYTES, artifact_of
from covey.protos import tensors_pb2 as pb
from covey.wire.artifacts import artifact_from, artifact_message


@given(st.integers(0, 3), st.binary(max_size=100))
def test_an_artifact_crosses_the_wire_unchanged(whole_chunks, rest):
    artifact = artifact_of([b"x" * CHUNK_BYTES] * whole_chunks + [rest] * bool(rest))
    message = pb.Artifact.FromString(artifact_message(artifact).SerializeToString())
    received = artifact_from(message)
    received.validate(artifact.size_bytes)
    assert received == artifact
