"""Re-checking a run from its signatures: who sent what, what became of it, and that nothing was changed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from covey.client.audit.gossip import check_gossip
from covey.client.audit.receipts import check_receipts
from covey.client.audit.rows import AuditedRun
from covey.client.audit.seals import check_seals, check_states
from covey.client.audit.signed import SignedRecord, SignedUpdate
from covey.client.values import Run
from covey.errors import CoveyError
from covey.spec.modes import mode_named
from covey.wire.identities.signing import CommitStatement, UpdateStatement, key_id, verify

S = TypeVar("S")
SHARES_TOLERANCE = 1e-6

Key = tuple[int, str, int]
"""Of an update: round, node, phase."""


@dataclass(frozen=True)
class AuditReport:
    """What an audit came to."""

    run: str
    commits: int
    updates: int
    pruned: int
    """Updates whose payload files are gone (retention); the rest of them is checked all the same."""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What of the run no signature covers, and why."""
    statements: int = 0
    """What the nodes of a gossip run stated of their parts."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def examine(
    signed: SignedRecord, run: Run, federation: str, coordinator_key: bytes, first_sha256: str = ""
) -> AuditReport:
    """Check what a coordinator says of a run.

    Args:
        signed: Its signed commits and updates.
        run: The run as it shows it.
        federation: The caller's federation.
        coordinator_key: The raw Ed25519 key that the caller knows the coordinator by.
        first_sha256: The model of version 0, which no commit signs; empty if it is not known.
    """
    audit = _Audit(run, federation, coordinator_key, first_sha256)
    problems = tuple(audit.examine(signed))
    pruned = sum(not update.kept for update in signed.updates)
    return AuditReport(run.run, len(signed.commits), len(signed.updates), pruned, problems)


def examine_record(
    audited: AuditedRun, federation: str, coordinator_key: bytes, receipts: Iterable[bytes] = ()
) -> AuditReport:
    """Compare every row of a run with what was signed of it.

    Args:
        audited: The rows.
        federation: The caller's federation.
        coordinator_key: The raw Ed25519 key that the caller knows the coordinator by.
        receipts: Lines of nodes' `receipts/RUN.jsonl`: what the coordinator signed for updates that it had.
    """
    shown = audited.shown()
    problems, notes = check_seals(audited, federation, coordinator_key)
    if not audited.run:
        problems.append(f"the run has {len(audited.rows['runs'])} rows on record, not one")
    try:
        report = examine(audited.signed(), shown, federation, coordinator_key, audited.first_sha256())
    except CoveyError as error:  # such as a mode that nobody has
        return AuditReport(shown.run, 0, 0, 0, (*problems, str(error)), tuple(notes))
    problems += [*check_states(audited), *_first_model(audited, shown)]
    problems += check_receipts(receipts, audited, federation, coordinator_key)
    wrong, uncovered = check_gossip(audited, federation)
    problems, notes = [*problems, *wrong], [*notes, *uncovered]
    statements = len(audited.rows["gossip_statements"])
    return replace(report, problems=(*report.problems, *problems), notes=tuple(notes), statements=statements)


def _first_model(audited: AuditedRun, shown: Run) -> Iterator[str]:
    """Whether a run that was given a model began with it."""
    initial = shown.spec.get("model", {}).get("initial", "")
    first = next((row for row in audited.rows["model_versions"] if row.get("version") == 0), None)
    if initial and first is not None and initial != f"sha256:{first.get('digest')}":
        yield "version 0 is not the model that the specification begins with"


class _Audit:
    def __init__(self, run: Run, federation: str, key: bytes, first_sha256: str) -> None:
        self._run, self._federation, self._key, self._first_sha256 = run, federation, key, first_sha256

    def examine(self, signed: SignedRecord) -> Iterator[str]:
        if signed.coordinator_key != self._key:
            yield "the coordinator signs with another key than the one that this identity trusts"
        commits: dict[int, CommitStatement] = {}
        updates: dict[Key, UpdateStatement] = {}
        yield from self._commits(signed, commits)
        recorded: dict[Key, SignedUpdate] = {}
        yield from self._updates(signed, updates, recorded)
        yield from self._verdicts(commits, recorded)
        yield from self._bases(commits, updates, recorded)

    def _commits(self, signed: SignedRecord, commits: dict[int, CommitStatement]) -> Iterator[str]:
        parent, last_sha256 = "", ""
        for number, item in enumerate(sorted(signed.commits, key=lambda c: c.version), start=1):
            name = f"commit {item.version}"
            commit, problem = _opened(CommitStatement.from_bytes, self._key, item.statement, item.signature)
            if commit is None:
                yield f"{name}: {problem}"
            else:
                commits[item.version] = commit
                last_sha256 = commit.model_sha256
                yield from (f"{name}: {text}" for text in self._commit(commit, item.version, number, parent))
            parent = hashlib.sha256(item.statement).hexdigest()
        if self._run.rounds_committed != len(signed.commits):
            yield f"{self._run.rounds_committed} rounds are committed, but {len(signed.commits)} are signed"
        if commits and self._run.model_sha256 != last_sha256:
            yield "the newest model is not the one of the last commit"

    def _commit(self, commit: CommitStatement, version: int, number: int, parent: str) -> Iterator[str]:
        if (commit.federation, commit.run, commit.version) != (self._federation, self._run.run, version):
            yield "is of another federation, run or version"
        if commit.version != number:
            yield f"{number} was expected: one is missing"
        if commit.parent != parent:
            yield "does not follow from the commit before it"
        if mode_named(self._run.mode).whole_shares:
            yield from self._shares([v.share for v in commit.verdicts if v.verdict == "accepted"])

    def _shares(self, shares: Sequence[float]) -> Iterator[str]:
        """What is wrong with the shares of a round's accepted updates.

        A share is what the rule says that an update has in the direction. Rules that clip give a part of the whole to
        nobody, and one with a centre gives it to earlier rounds, so that less than 1 is no fault; more than 1 is. Only
        the plain mean must give away all of it.
        """
        for share in shares:
            if not -SHARES_TOLERANCE <= share <= 1 + SHARES_TOLERANCE:
                yield f"an accepted update has a share of {share:g}"
        total = math.fsum(shares)
        if total > 1 + SHARES_TOLERANCE or (_is_plain_mean(self._run.spec) and total < 1 - SHARES_TOLERANCE):
            yield f"the shares of its accepted updates sum to {total:g}"

    def _updates(
        self, signed: SignedRecord, statements: dict[Key, UpdateStatement], recorded: dict[Key, SignedUpdate]
    ) -> Iterator[str]:
        for item in signed.updates:
            name = f"round {item.round}, update of {item.node}"
            update, problem = _opened(UpdateStatement.from_bytes, item.signing_key, item.statement, item.signature)
            recorded[item.round, item.node, _phase(item) if update is None else update.phase] = item
            if update is None:
                yield f"{name}: {problem}"
                continue
            statements[item.round, item.node, update.phase] = update
            if (update.federation, update.run) != (self._federation, self._run.run):
                yield f"{name}: is of another federation or run"
            if (update.round, update.node) != (item.round, item.node):
                yield f"{name}: was signed for round {update.round} by {update.node}"
            if update.key != key_id(item.signing_key):
                yield f"{name}: names another key than the one that signed it"

    def _verdicts(self, commits: Mapping[int, CommitStatement], recorded: Mapping[Key, SignedUpdate]) -> Iterator[str]:
        committed = {
            (v.round or commit.round, v.node, v.phase): v for commit in commits.values() for v in commit.verdicts
        }
        for (number, node, phase), verdict in committed.items():
            name, item = f"round {number}, update of {node}", recorded.get((number, node, phase))
            if item is None:
                yield f"{name}: is in the commit, but not on record"
            elif hashlib.sha256(item.statement).hexdigest() != verdict.update:
                yield f"{name}: the commit is about another update"
            elif item.verdict != verdict.verdict:
                yield f"{name}: is on record as {item.verdict}, but was committed as {verdict.verdict}"
        for (number, node, phase), item in recorded.items():
            if item.verdict == "accepted" and (number, node, phase) not in committed:
                yield f"round {number}, update of {node}: is on record as accepted, but in no commit"

    def _bases(
        self,
        commits: Mapping[int, CommitStatement],
        updates: Mapping[Key, UpdateStatement],
        recorded: Mapping[Key, SignedUpdate],
    ) -> Iterator[str]:
        synchronous = mode_named(self._run.mode).synchronous
        models = {0: self._first_sha256, **{number: commit.model_sha256 for number, commit in commits.items()}}
        for (number, node, phase), update in updates.items():
            base = number - 1 if synchronous else recorded[number, node, phase].base_version
            before = models.get(base)
            if before and update.base != before:
                yield f"round {number}, update of {node}: was not made from version {base}"


def _is_plain_mean(spec: Mapping[str, Any]) -> bool:
    """Whether a specification asks for the mean of the updates as they come; not if it is unknown."""
    aggregation, method = spec.get("aggregation", {}), spec.get("method", {})
    return method.get("name") == "none" and aggregation.get("name") == "mean" and not aggregation.get("pre")


def _phase(item: SignedUpdate) -> int:
    """The phase that an update says that it is of; 1 where it cannot be read, which is a problem of its own."""
    try:
        return UpdateStatement.from_bytes(item.statement).phase
    except CoveyError:
        return 1


def _opened(parse: Callable[[bytes], S], key: bytes, statement: bytes, signature: bytes) -> tuple[S | None, str]:
    """A statement if its signature is valid, else why not."""
    try:
        verify(key, statement, signature)
        return parse(statement), ""
    except CoveyError as error:
        return None, str(error)
