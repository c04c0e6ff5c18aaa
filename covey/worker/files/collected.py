"""What a gossip node has of its peers for its next trainings: a file of bodies, by sender and step.

Bodies are one after the other, all of one size. Behind them are their senders and steps as JSON, and the JSON's length
(8 bytes, little-endian).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from covey.artifact import Artifact
from covey.errors import LayoutError
from covey.worker.files.writing import ArtifactWriter, raw_bytes

LENGTH_BYTES = 8
Sent = tuple[str, int]
"""Who sent a body, and in which step, from 0."""


def read_collected(path: Path | None, size: int) -> dict[Sent, Tensor]:
    """The bodies, uint8 `[size]` each, in a private mapping; of no file, none.

    Raises:
        LayoutError: It is no such file.
    """
    if path is None:
        return {}
    whole = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    length = int.from_bytes(bytes(whole[-LENGTH_BYTES:].tolist()), "little")
    rows, rest = divmod(len(whole) - LENGTH_BYTES - length, size)
    if rows < 0 or rest:
        raise LayoutError(f"{path.name} has no bodies of {size} bytes")
    sent = json.loads(bytes(whole[rows * size : -LENGTH_BYTES].tolist()))
    if len(sent) != rows:
        raise LayoutError(f"{path.name} has {rows} bodies, and names {len(sent)}")
    return {(name, step): whole[k * size : (k + 1) * size] for k, (name, step) in enumerate(sent)}


def write_collected(out: Path, bodies: Mapping[Sent, Tensor], *, synced: bool) -> Artifact:
    """Write bodies, uint8, all of one size."""
    with ArtifactWriter(out, synced=synced) as writer:
        for body in bodies.values():
            writer.write(raw_bytes(body))
        names = json.dumps(list(bodies)).encode()
        writer.write(memoryview(names + len(names).to_bytes(LENGTH_BYTES, "little")))
        return writer.close()


def newest(sent: Iterable[Sent]) -> set[Sent]:
    """Of each sender the newest."""
    steps: dict[str, int] = {}
    for name, step in sent:
        steps[name] = max(step, steps.get(name, step))
    return set(steps.items())
