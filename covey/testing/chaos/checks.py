"""What must hold of a run that was disturbed, and of the coordinator's files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from covey.client.event_log import debug_log
from covey.coordinator.config import sqlite_url
from covey.errors import CoveyError
from covey.machines.log import Replayed
from covey.storage.record.records import StepRecord
from covey.storage.sql.store import open_store
from covey.testing.chaos.arena import Arena
from covey.testing.chaos.logs import tracebacks_in
from covey.testing.chaos.works import Work

COMMAND_S = 600.0
FINAL = frozenset({"accepted", "rejected"})


def problems_of(arena: Arena, work: Work, shown: dict[str, Any], *, undisturbed: str, replay: bool) -> Iterator[str]:
    """What does not hold of a run that has ended.

    Args:
        arena: Where it ran; the coordinator answers.
        work: What kind of run it was.
        shown: As `covey run show --json` has it.
        undisturbed: The model that it owes; empty: none.
        replay: Whether its updates are all there.
    """
    name, run = shown["name"], shown["run"]
    if shown["state"] != "completed":
        yield f"{name} is {shown['state']}: {shown['reason']}"
    if undisturbed and shown["model_sha256"] != undisturbed:
        yield f"{name} ended with the model {shown['model_sha256']}, and without faults with {undisturbed}"
        yield from (f"{name}: {text}" for text in _left_out(arena, run))
    for command in ("audit", "replay") if replay else ("audit",):
        yield from _command(arena, command, name, run)
    with closing(open_store(sqlite_url(arena.federation.coordinator_dir))) as store:
        yield from (f"the store's check of {name}: {text}" for text in store.check())
        yield from judged_twice(store.steps(run), name)
    if work.mode == "async":
        yield from _arrivals(arena, shown)
    yield from _event_logs(arena.federation.coordinator_dir / "events", name, run)


def _command(arena: Arena, command: str, name: str, run: str) -> Iterator[str]:
    options = ["--allow-paths"] if command == "replay" else []
    where = ["--json", "--data-dir", arena.federation.coordinator_dir, *options]
    printed = arena.federation.cli("run", command, run, *where, timeout_s=COMMAND_S, check=False)
    try:
        report = json.loads(printed)
    except ValueError:
        yield f"covey run {command} of {name} ({run}) printed {printed[-500:]!r}"
        return
    if not report["ok"]:
        yield f"covey run {command} of {name} ({run}): {'; '.join(report['problems'][:5])}"


def judged_twice(steps: Iterable[StepRecord], name: str) -> Iterator[str]:
    """Updates that were accepted or rejected by more than one step: each counts once."""
    final = Counter(
        (verdict["round"], verdict["node"], verdict.get("phase", 1))
        for step in steps
        for verdict in step.verdicts
        if verdict["verdict"] in FINAL
    )
    for (number, node, phase), times in final.items():
        if times > 1:
            yield f"{name}: the update of {node} to {number} (phase {phase}) was decided on {times} times"


def _left_out(arena: Arena, run: str) -> Iterator[str]:
    with closing(open_store(sqlite_url(arena.federation.coordinator_dir))) as store:
        numbers = [record.round for record in store.rounds(run)]
        for update in store.updates_of(run, numbers):
            if update.verdict != "accepted":
                yield f"round {update.round}, phase {update.phase}, {update.node}: {update.verdict}, {update.reason}"


def _arrivals(arena: Arena, shown: dict[str, Any]) -> Iterator[str]:
    """Every update that was received is decided on in its order, as many as were asked for."""
    rounds = arena.federation.rounds(shown["run"])
    arrivals = sorted(row["arrival"] for row in rounds if row["arrival"])
    if arrivals != list(range(1, len(arrivals) + 1)):
        yield f"{shown['name']}: updates were recorded as {arrivals}"
    decided = sum(row["state"] == "decided" for row in rounds)
    if decided != shown["updates_decided"]:
        yield f"{shown['name']}: {decided} updates are decided on, and the run says {shown['updates_decided']}"


def _event_logs(folder: Path, name: str, run: str) -> Iterator[str]:
    for path in sorted(folder.glob(f"{run}*.jsonl")):
        try:
            different = [item for item in debug_log(path) if isinstance(item, Replayed) and item.difference]
        except CoveyError as error:
            yield f"the event log of {name}, {path}: {error}"
            continue
        if different:
            yield f"the event log of {name}, {path}: {len(different)} events lead to other actions: {different[0]}"


def orphans(arena: Arena) -> list[str]:
    """Files of models and updates that are on no record, and those on record that are not there."""
    home = arena.federation.coordinator_dir
    with closing(open_store(sqlite_url(home))) as store:
        wanted = set(store.referenced_digests())
    on_disk = {path.name for path in (home / "files" / "artifacts").iterdir()}
    return [f"file {digest} is on nobody's record" for digest in sorted(on_disk - wanted)] + [
        f"file {digest} is on record, and not there" for digest in sorted(wanted - on_disk)
    ]


def tracebacks(arena: Arena) -> Iterator[str]:
    """Logs in which a daemon or worker was surprised."""
    return tracebacks_in(sorted((arena.federation.root / "logs").glob("*.log")))
