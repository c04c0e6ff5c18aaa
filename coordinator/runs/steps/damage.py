"""Whether the files that a run goes on from are what its record says: after a restart, and whenever they are used.

What this process receives or makes is checked as it comes. A file from before is hashed once, before it is used. An
update whose files are damaged or missing is asked for again: in rounds always, in an asynchronous run after a restart;
one that is found later there is lost, and the run goes on. Without its newest version it cannot.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from pathlib import Path

import structlog

from covey.artifact import Artifact, artifact_of
from covey.coordinator.runs.ports import Files, RunServices
from covey.errors import CorruptChunk
from covey.storage.record.contract import EventRecord, Store, UpdateRecord, VersionRecord

log = structlog.get_logger(room="coordinator")
OPEN = ("collecting", "aggregating")
PAGE = 1000
"""Rounds, or assignments, from the newest on that may be open: there is one for each node."""
RESTORE = "restore a backup of the coordinator, or submit the run anew"


async def bring(services: RunServices, digests: Iterable[str]) -> None:
    """Fetch what lasts elsewhere and is not here, and hash what is, before the record's thread looks at it.

    There everybody would wait for it. It says nothing of a file that is damaged or missing.
    """
    wanted = list(digests)
    await services.store.obstacle.passed(lambda: asyncio.to_thread(_look_at, services.files, wanted))


def _look_at(files: Files, digests: Iterable[str]) -> None:
    for digest in digests:
        files.check(digest)


async def check_files(services: RunServices, run: str) -> list[UpdateRecord]:
    """As `check_run`, with all files brought before."""
    store = services.store
    await bring(services, await store.persist(_needed, store.store, run))
    return await store.persist(check_run, store.store, services.files, run, services.now())


def check_run(store: Store, files: Files, run: str, now: float) -> list[UpdateRecord]:
    """Check all that a running run needs now; the updates that its nodes are asked for again. Blocking.

    Raises:
        CorruptChunk: What cannot be had again is damaged or missing.
    """
    _check_versions(store, files, run)
    return forget_damaged(store, files, _of_open_rounds(store, run), "after a restart", now)


def forget_damaged(
    store: Store, files: Files, answers: Iterable[UpdateRecord], when: str, now: float
) -> list[UpdateRecord]:
    """Drop updates of an open round whose files are damaged or missing, for their nodes to be asked again. Blocking.

    Args:
        store: The record.
        files: Where they are.
        answers: What the record has of the round; only updates without a verdict are looked at.
        when: They were found to be so, for people.
        now: For the event that says so.

    Returns:
        Those that were dropped.
    """
    sent = [answer for answer in answers if answer.verdict == "received" and answer.parts]
    lost = [update for update in sent if not is_whole(update, files)]
    for update in lost:
        if store.forget_update(update):
            reason = f"its files were damaged or missing {when}: the node is asked for it again"
            note_lost(store, update, reason, now)
    return lost


def note_lost(store: Store, update: UpdateRecord, reason: str, now: float) -> None:
    """An event and a line of the log: an update that was acknowledged is not used. Blocking."""
    detail = {"round": update.round, "phase": update.phase, "reason": reason}
    store.add_event(EventRecord(now, "update-lost", update.run, update.node, detail))
    log.error("an update is lost", run=update.run, node=update.node, round=update.round, reason=reason)


def is_whole(update: UpdateRecord, files: Files) -> bool:
    """Whether all files of an update are what the record says; each that is not is dropped. Blocking."""
    checks = [files.check(part.artifact.digest) for part in update.parts]
    return all(checks)


def intact(files: Files, digest: str) -> Path:
    """The path of a file that is to be read now.

    Raises:
        CorruptChunk: It is damaged or missing.
    """
    if not files.check(digest):
        raise CorruptChunk(f"the file {files.path(digest)} is damaged or missing; {RESTORE}")
    return files.path(digest)


def intact_bytes(files: Files, artifact: Artifact) -> bytes:
    """The content of a small file that goes into a message now: the bytes that were hashed are those that go.

    Raises:
        CorruptChunk: It is damaged or missing.
    """
    path = intact(files, artifact.digest)
    data = path.read_bytes()
    if artifact_of([data] if data else []).digest != artifact.digest:
        raise CorruptChunk(f"the file {path} is damaged; {RESTORE}")
    return data


def _of_open_rounds(store: Store, run: str) -> Iterable[UpdateRecord]:
    """What the record has of open rounds."""
    page = store.rounds(run, limit=PAGE, newest=True)
    for record in page:
        if record.state in OPEN:
            yield from store.updates(run, record.round)


def _needed(store: Store, run: str) -> list[str]:
    """The digests of all that `check_run` checks, the newest version last: it is used most recently."""
    answers = [answer for answer in _of_open_rounds(store, run) if answer.verdict == "received"]
    newest, step = store.version(run, -1), store.last_step(run)
    pinned = [store.version(run, number) for number in (step.pinned_versions if step is not None else ())]
    digests = [part.artifact.digest for answer in answers for part in answer.parts]
    return digests + [digest for version in (*pinned, newest) for digest in _digests(version)]


def _digests(version: VersionRecord) -> list[str]:
    return [version.artifact.digest, *(part.artifact.digest for part in version.state)]


def _check_versions(store: Store, files: Files, run: str) -> None:
    newest, step = store.version(run, -1), store.last_step(run)
    _require(files, newest, f"the newest version ({newest.version})")
    if step is None:
        return
    if step.state and hashlib.sha256(step.state.encode()).hexdigest() != step.state_sha256:
        raise CorruptChunk(f"the policy's state after step {step.number} is not the one that was recorded; {RESTORE}")
    for number in step.pinned_versions:
        _require(files, store.version(run, number), f"version {number}, which the policy compares with")


def _require(files: Files, version: VersionRecord, what: str) -> None:
    for digest in _digests(version):
        if not files.check(digest):
            raise CorruptChunk(f"a file of {what} is damaged or missing ({digest}); {RESTORE}")
