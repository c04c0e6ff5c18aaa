"""Layouts that are too long for a message: files by digest, which nodes download as they do models."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from covey.artifact import CHUNK_BYTES, INLINE_BYTES, Artifact, artifact_of, chunk_count
from covey.coordinator.runs.ports import Files
from covey.coordinator.runs.retention import Retention
from covey.errors import LimitExceeded
from covey.gossip.protocols.runs import exchanges_in_words
from covey.parts import METHOD, collected
from covey.spec import GossipSpec, RunSpec
from covey.storage.record.contract import RunRecord
from covey.worker.jobs.runs import Description

MAX_MESSAGE_BYTES = 4 << 20
"""What gRPC takes at the most."""
SLACK_BYTES = 4 * INLINE_BYTES
"""For small files that come along, numbers and names."""
CHANGE = "change"
"""Among the files of a version: the change that leads to it."""
TABLE_BYTES = 32
"""Of a chunk, in the table of a file that is announced."""
MAX_TABLES_BYTES = 1 << 20
"""Of such tables, those of other nodes' files; of more each comes with the grant of its download."""
ENTRY_BYTES = 224
"""Another node's file that is announced: its digest, its size, and names as long as they may be."""


@lru_cache(maxsize=32)
def layout_file(layout: str) -> Artifact | None:
    """The file of a layout; None: it goes into the message."""
    return artifact_of(_chunks(layout)) if len(layout) > INLINE_BYTES else None


def keep_layout(files: Files, retention: Retention, run: RunRecord) -> None:
    """Have the file of a run's layout ready, if it has one, until the run ends. It is made from the record.

    In the record's thread, where files are dropped: a run that ends now may have had the same one.
    """
    artifact = layout_file(run.layout)
    if artifact is None:
        return
    retention.need(run.run, artifact.digest)
    if not files.has(artifact.digest):
        files.put(artifact, run.layout.encode())


def refuse_oversized(spec_json: str, description: Description, nodes: int = 0) -> None:
    """Refuse a run whose assignments could not be sent.

    Args:
        spec_json: Its specification.
        description: Of it.
        nodes: How many nodes there are: some methods bring the file of each to the others.

    Raises:
        LimitExceeded: The message says how long one would be, and what of it is how long.
    """
    model = description.model_bytes
    brought = [size for name, size in description.slots.items() if name == CHANGE or name.startswith(METHOD)]
    tables = TABLE_BYTES * sum(map(chunk_count, [model, *brought]))
    peers = [part for part in collected(description.parts) if part.down is not None and part.audience != "own"]
    others = len(peers) * nodes * ENTRY_BYTES + (MAX_TABLES_BYTES if peers else 0)
    size = len(spec_json) + tables + others + SLACK_BYTES
    if size > MAX_MESSAGE_BYTES and others > size - others:
        raise LimitExceeded(
            f"an assignment of this run would have about {size} bytes ({others} to name the {len(peers)} files of "
            f"each of {nodes} nodes), and a message has at most {MAX_MESSAGE_BYTES}; this method is for fewer nodes"
        )
    if size > MAX_MESSAGE_BYTES:
        raise LimitExceeded(
            f"an assignment of this run would have about {size} bytes ({len(spec_json)} of the specification, {tables} "
            f"of the checksums of a model of {model} bytes and what goes with it), and a message has at most "
            f"{MAX_MESSAGE_BYTES}; choose a smaller model"
        )


def moved_in_words(spec: RunSpec, description: Description, nodes: Sequence[str], *, allow_path: bool = False) -> str:
    """What nodes get of each other's files, in a round or in a step among peers; empty: nothing.

    Args:
        spec: The run.
        description: What the worker says of it.
        nodes: Who is active.
        allow_path: Whether plug-ins may be named by import path.
    """
    if isinstance(spec, GossipSpec):
        return exchanges_in_words(spec, nodes, description.model_bytes, allow_path=allow_path)
    return told_to_others(description, len(nodes))


def told_to_others(description: Description, nodes: int) -> str:
    """What a round moves where nodes get each other's files, in words; empty: they do not."""
    peers = [part for part in collected(description.parts) if part.down is not None and part.audience != "own"]
    size = sum(part.size_bytes for part in peers)
    if not size or nodes < 2:
        return ""
    names, down = ", ".join(part.name for part in peers), nodes * (nodes - 1)
    return (
        f"each node gets what the others send ({names}): of {nodes} nodes, a round takes {nodes} x {size} = "
        f"{nodes * size} bytes up and {down} x {size} = {down * size} bytes down, and a version keeps {nodes * size}"
    )


def _chunks(layout: str) -> list[bytes]:
    data = layout.encode()
    return [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
