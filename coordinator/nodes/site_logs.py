"""What nodes share of their logs: files of a bounded size, `RUN/NODE.jsonl`, and `NODE.1.jsonl` with what came before.

Lines are numbered from 1 in the order in which they came. What a node says next is read once its lines are written:
a slow disk holds up the nodes that share, and one that takes no line costs the line. What a node sends is cut, made
printable, and taken at a bounded rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from covey import messages as msg
from covey.coordinator.runs.active_runs import ActiveRuns
from covey.coordinator.store_thread import StoreThread
from covey.errors import CoveyError
from covey.texts import printable
from covey.wire.listeners.buckets import Buckets

log = structlog.get_logger(room="coordinator")
FOLDER = "site-logs"
"""In the coordinator's data directory."""
RUN_BYTES = 32 << 20
"""Of one run, shared out among the nodes that take part."""
NODE_BYTES = 512 << 10
"""Of one node in one run, at most."""
MOST_RUNS = 100
"""Runs whose logs are kept; those that were written longest ago go, but of the active ones none."""
PACE = (256 << 10, 8192.0)
"""Bytes of one node's lines that are taken at once, and how many a second after that."""
MAX_LINES, MAX_LINE = 200, 1000
"""Lines of one message; characters of a line."""
SHARING = ("none", "failures", "all")
KINDS = ("failure", "traceback", "output", "node")
LATE_S = 600.0
"""So long after a run's end its nodes' last lines are taken."""
MOST_OPEN = 4096
"""For so many logs it is remembered where they end."""


@dataclass
class _End:
    """Where a node's log of a run ends."""

    number: int = 0
    sharing: str = ""
    bytes: int = 0


@dataclass(frozen=True)
class Page:
    """Lines of a log, as JSON objects; `sharing`: what the node shares, empty where it has said nothing."""

    sharing: str
    lines: list[Mapping[str, Any]] = field(default_factory=list)


class SiteLogs:
    """The logs in a coordinator's data directory; for any thread. Names are those of runs and nodes on record.

    Args:
        folder: Where they are; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ends: dict[tuple[str, str], _End] = {}
        self._lock = threading.Lock()
        self._has_failed = False

    def add(
        self, run: str, node: str, sharing: str, lines: list[dict[str, Any]], nodes: int, active: Container[str] = ()
    ) -> None:
        """Write lines behind those that there are; a disk that does not take them is said once.

        Args:
            run: The run's id.
            node: The node's name.
            sharing: What it shares.
            lines: Without their numbers.
            nodes: How many take part in the run.
            active: Runs whose logs stay.
        """
        with self._lock:
            try:
                self._make_room(self._path(run, node).parent, active)
                self._add(run, node, sharing, lines, min(NODE_BYTES, RUN_BYTES // max(1, nodes)) // 2)
                self._has_failed = False
            except OSError as error:
                self._ends.pop((run, node), None)
                if not self._has_failed:
                    log.warning("what nodes share of their logs cannot be written", reason=str(error))
                self._has_failed = True

    def _add(self, run: str, node: str, sharing: str, lines: list[dict[str, Any]], file_bytes: int) -> None:
        path = self._path(run, node)
        end = self._end(run, node)
        for line in lines if end.sharing == sharing else [{"sharing": sharing}, *lines]:
            end.number, end.sharing = end.number + 1, sharing
            raw = _json({"number": end.number, **line})
            if end.bytes and end.bytes + len(raw) > file_bytes:
                path.replace(path.with_name(f"{node}.1.jsonl"))
                end.bytes = 0
                raw = _json({"number": end.number, "sharing": sharing, **line})
            with path.open("ab") as file:
                file.write(raw)
            end.bytes += len(raw)
        os.utime(path.parent)  # which appending to a file in it leaves as it was

    def _end(self, run: str, node: str) -> _End:
        end = self._ends.pop((run, node), None)
        if end is None:
            path = self._path(run, node)
            end = _End()
            for entry in self._entries(run, node):
                end.number, end.sharing = entry["number"], entry.get("sharing", end.sharing)
            with contextlib.suppress(FileNotFoundError):
                end.bytes = path.stat().st_size
        self._ends[run, node] = end
        if len(self._ends) > MOST_OPEN:
            del self._ends[next(iter(self._ends))]
        return end

    def _make_room(self, folder: Path, active: Container[str]) -> None:
        if folder.is_dir():
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        by_age = sorted(
            (path for path in self._folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime
        )
        too_many = max(0, len(by_age) + 1 - MOST_RUNS)
        for path in [path for path in by_age if path.name not in active][:too_many]:
            self._drop(path.name)
        folder.mkdir(exist_ok=True, mode=0o700)

    def page(self, run: str, node: str, after: int, most: int) -> Page:
        """The first `most` lines after a number, in order."""
        with self._lock:
            sharing, lines = "", list[Mapping[str, Any]]()
            for entry in self._entries(run, node):
                sharing = entry.get("sharing", sharing)
                if "text" in entry and entry["number"] > after and len(lines) < most:
                    lines.append(entry)
            return Page(sharing, lines)

    def drop(self, run: str) -> int:
        """Delete a run's; how many bytes that were."""
        with self._lock:
            return self._drop(run)

    def _drop(self, run: str) -> int:
        folder = self._folder / run
        size = sum(path.stat().st_size for path in folder.glob("*.jsonl"))
        shutil.rmtree(folder, ignore_errors=True)
        for key in [key for key in self._ends if key[0] == run]:
            del self._ends[key]
        return size

    def _entries(self, run: str, node: str) -> Iterator[dict[str, Any]]:
        path = self._path(run, node)
        for each in (path.with_name(f"{node}.1.jsonl"), path):
            with contextlib.suppress(FileNotFoundError):
                for raw in each.read_bytes().splitlines():
                    with contextlib.suppress(ValueError):  # a power cut left half a line
                        yield json.loads(raw)

    def _path(self, run: str, node: str) -> Path:
        return self._folder / run / f"{node}.jsonl"


def _json(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=True).encode() + b"\n"


class SiteLogDoor:
    """Takes what nodes send: of those that take part in a run, at a bounded rate.

    Args:
        logs: Where it is kept.
        runs: The runs in progress.
        store: The record, which knows the others.
    """

    def __init__(self, logs: SiteLogs, runs: ActiveRuns, store: StoreThread) -> None:
        self._logs, self._runs, self._store = logs, runs, store
        self._room = Buckets(*PACE)
        self._left_out: dict[str, int] = {}

    async def take(self, node: str, message: msg.SiteLog, now: float) -> None:
        """Take one message of a node; one about a run that it has no part in is passed over."""
        roster = await self._roster(message.run, now)
        if node not in roster or message.sharing not in SHARING:
            return
        lines = [_line(line, now) for line in message.lines[:MAX_LINES]]
        room, size = self._room.of(node, time.monotonic()), sum(len(_json(line)) for line in lines)
        if room.refill(time.monotonic()) < size:
            self._left_out[node] = self._left_out.get(node, 0) + len(lines)
            lines = []
        elif lines:
            room.level -= size
            if count := self._left_out.pop(node, 0):
                text = f"[{count} lines were left out by the coordinator: they came too fast]"
                lines.append({"at": now, "round": 0, "kind": "node", "text": text})
        active = frozenset(self._runs.active)
        await asyncio.to_thread(self._logs.add, message.run, node, message.sharing, lines, len(roster), active)

    async def _roster(self, run: str, now: float) -> tuple[str, ...]:
        active = self._runs.of(run)
        if active is not None:
            return active.run.roster
        try:
            record = await self._store.call(self._store.store.run, run[:200])
        except CoveyError:  # there is none, or the record is away: a log is not worth waiting for it
            return ()
        is_over = record.ended_at is not None and now - record.ended_at > LATE_S
        return () if record.run != run or is_over else record.roster


def _line(line: msg.SiteLogLine, now: float) -> dict[str, Any]:
    return {
        "at": line.at if math.isfinite(line.at) and line.at > 0 else now,
        "round": line.round,
        "kind": line.kind if line.kind in KINDS else "node",
        "text": printable(line.text[:MAX_LINE]).replace("\n", " ")[: 2 * MAX_LINE],
    }
