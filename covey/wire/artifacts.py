"""Artifacts as messages."""

from __future__ import annotations

from covey.artifact import Artifact
from covey.protos import tensors_pb2 as pb


def artifact_message(artifact: Artifact) -> pb.Artifact:
    """An artifact as a message."""
    return pb.Artifact(digest=artifact.digest, size_bytes=artifact.size_bytes, chunk_sha256=artifact.chunk_sha256)


def artifact_from(message: pb.Artifact) -> Artifact:
    """The artifact that a message announces; nothing of it is checked yet: see `Artifact.validate`."""
    return Artifact(message.digest, message.size_bytes, bytes(message.chunk_sha256))
