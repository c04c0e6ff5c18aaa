"""What a node does just now, for people: a small file beside the record, which the node drops when it ends in order.

Nothing depends on it: it is not synced, and where it cannot be written, what is there is older.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from covey.artifact import Artifact
from covey.node.gossip.diary import Span
from covey.node.gossip.executor import Executor
from covey.node.gossip.record.rows import peer_rows
from covey.worker.jobs.training import TrainResult

FILE = "now.json"


@dataclass(frozen=True)
class OnItsWay:
    """A batch that a peer does not have yet: since when (Unix seconds), how often it was sent, the last error."""

    peer: str
    incarnation: int
    sequence: int
    step: int
    since: float
    tries: int
    error: str = ""


@dataclass(frozen=True)
class Now:
    """A node at one moment.

    Attributes:
        step: The step that it is in.
        phase: Of the step.
        waits_for: In words; empty: it works.
        since: Since when it waits for that, in Unix seconds.
        obstacle: What is in this machine's way; empty: nothing.
        links: Peers that there is a connection to.
        troubles: By peer: why it cannot be called.
        peers: What is known of each: peer, incarnation, state, step.
        under_way: Batches that are being sent.
    """

    step: int
    phase: str
    waits_for: str = ""
    since: float = 0.0
    obstacle: str = ""
    links: tuple[str, ...] = ()
    troubles: Mapping[str, str] = field(default_factory=dict)
    peers: tuple[dict[str, Any], ...] = ()
    under_way: tuple[OnItsWay, ...] = ()


_NOW = TypeAdapter(Now)


class Teller:
    """Keeps the file of one incarnation.

    Args:
        folder: The incarnation's.
        min_nodes: How many nodes have to be there for it to begin.
        stays: Whether it goes on to answer peers when all is done.
    """

    def __init__(self, folder: Path, min_nodes: int, *, stays: bool = False) -> None:
        self._path, self._min_nodes, self._stays = folder / FILE, min_nodes, stays
        self._told: Now | None = None

    def seen(
        self,
        executor: Executor[Artifact, TrainResult],
        under_way: Sequence[Span],
        links: Sequence[str],
        troubles: Mapping[str, str],
        obstacle: str,
    ) -> Now:
        """How the node is. To be called where the executor works."""
        told, machine = self._told, executor.machine
        waits_for = executor.waits_for
        if machine.phase == "new":
            waits_for = f"waiting for nodes: {machine.exchange.heard} of {self._min_nodes} are there"
        elif executor.finished == "completed" and self._stays:
            waits_for = "nothing: all are through, and it stays until it is stopped"
        since = told.since if told is not None and told.waits_for == waits_for else time.time()
        return Now(
            machine.step,
            machine.phase,
            waits_for,
            since,
            obstacle,
            tuple(links),
            dict(troubles),
            tuple(peer_rows(machine.exchange)),
            tuple(map(_on_its_way, under_way)),
        )

    def tell(self, now: Now) -> None:
        """Put it on disk, if it has changed. Blocking: a busy disk may take long."""
        with contextlib.suppress(OSError):  # what is in the way is said elsewhere
            if now == self._told:
                os.utime(self._path)  # it is so still
                return
            staged = self._path.with_suffix(".new")
            staged.write_text(json.dumps(asdict(now)))
            staged.rename(self._path)
            self._told = now

    def drop(self) -> None:
        """The node does nothing any more."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def _on_its_way(span: Span) -> OnItsWay:
    if span.peer is None:
        raise ValueError(f"{span.kind} is no batch")
    who = span.peer
    return OnItsWay(who.node, who.number, span.sequence, span.step, span.began, span.tries, span.outcome)


def read_now(folder: Path) -> tuple[Now, float] | None:
    """What a node said last of itself, and how long ago, in seconds; None: it does not run, or said nothing yet."""
    path = folder / FILE
    try:
        return _NOW.validate_json(path.read_bytes()), max(0.0, time.time() - path.stat().st_mtime)
    except (OSError, ValidationError):
        return None
