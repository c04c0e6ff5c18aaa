"""The contract of the store: what is recorded, and what every back end promises.

All methods are synchronous, atomic (one transaction each) and safe to call from any thread; the daemon calls
them from one worker thread. What a method returned without an error survives `kill -9` and a power cut. Times
are Unix seconds.

Every method may raise `StoreUnavailable` (the database is away: try again later) and, if it writes, `Fenced`
(another coordinator took the lease: this one must stop). A call that raised has changed nothing, with one
exception: where the connection broke during the commit itself, it may have happened. The methods that bring a
run forward may therefore be called again with the same arguments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

from covey.storage.record.records import (
    DecisionRecord,
    EventRecord,
    Json,
    NodeRecord,
    PartRecord,
    PolicyStateRecord,
    Role,
    RoundRecord,
    RoundState,
    RunRecord,
    RunState,
    TokenRecord,
    UpdateRecord,
    Verdict,
    VersionRecord,
)

__all__ = [
    "DecisionRecord",
    "EventRecord",
    "Json",
    "NodeRecord",
    "PartRecord",
    "PolicyStateRecord",
    "Role",
    "RoundRecord",
    "RoundState",
    "RunRecord",
    "RunState",
    "Store",
    "TokenRecord",
    "UpdateRecord",
    "Verdict",
    "VersionRecord",
]


class Store(ABC):
    """The record of nodes, tokens, runs, rounds, updates, decisions, versions and events."""

    # -- lease and life --------------------------------------------------------------------------------------

    @abstractmethod
    def acquire_lease(self, holder: str) -> int:
        """Become the one coordinator on this store; returns the fencing number, higher than every one before.

        The lease is held until `close`, or until this process ends, however it ends. A store that holds it
        already keeps its number. One that never acquires it is not fenced: it is for reading.

        Raises:
            Conflict: A living coordinator holds the lease (the message names it).
        """

    @abstractmethod
    def close(self) -> None:
        """Release the lease and every connection; the store cannot be used afterwards."""

    @abstractmethod
    def check(self) -> list[str]:
        """Look for contradictions in the record (orphans, gaps in a chain); one line each, or none."""

    # -- runs ------------------------------------------------------------------------------------------------

    @abstractmethod
    def add_run(self, run: RunRecord) -> None:
        """Record a submitted run (state queued). Raises `Conflict` if the id exists."""

    @abstractmethod
    def run(self, run: str) -> RunRecord:
        """A run by its id, or by its name if exactly one run has that name.

        Raises:
            NotFound: No such run.
            Conflict: Several runs have this name; the message lists their ids.
        """

    @abstractmethod
    def runs(self, *, states: Sequence[RunState] = (), limit: int = 100) -> list[RunRecord]:
        """Runs, newest submission first, optionally only those in some states."""

    @abstractmethod
    def count_runs(self, states: Sequence[RunState]) -> int:
        """How many runs are in one of these states."""

    @abstractmethod
    def start_run(
        self, run: str, roster: Sequence[str], parts: int, layout: str, first: VersionRecord, at: float
    ) -> None:
        """From queued to running, with its roster, layout and version 0, all at once.

        Idempotent for the same version 0. Raises `Conflict` if the run is in another state, `NotFound` if
        there is none.
        """

    @abstractmethod
    def extend_roster(self, run: str, nodes: Sequence[str], parts: int) -> tuple[str, ...]:
        """Append nodes that are not in the roster yet, record `parts` if still 0; returns the roster."""

    @abstractmethod
    def set_reason(self, run: str, reason: str) -> None:
        """What a running run waits for; empty when it goes on. A run that has ended keeps its reason."""

    @abstractmethod
    def finish_run(self, run: str, state: RunState, reason: str, at: float) -> None:
        """Bring a run into a terminal state; one that is in one keeps it. An unfinished round fails too."""

    # -- rounds and updates ----------------------------------------------------------------------------------

    @abstractmethod
    def open_round(self, record: RoundRecord) -> None:
        """Record a new round of a running run, or a new attempt of the same round; it then collects.

        A new attempt keeps the round's `started_at`, and its updates and rejections; outcomes `declined` and
        `lost` of those who are invited again are forgotten. Idempotent for the same attempt.

        Raises:
            Conflict: The run is not running, the round has ended, or is in a later attempt, or has another
                base version, or its base version is not recorded.
            NotFound: No such run.
        """

    @abstractmethod
    def rounds(self, run: str) -> list[RoundRecord]:
        """Every round of a run in order, with counts and metrics."""

    @abstractmethod
    def round(self, run: str, number: int) -> RoundRecord:
        """One round. Raises `NotFound`."""

    @abstractmethod
    def record_update(self, update: UpdateRecord) -> bool:
        """Record a durable update (verdict received).

        Returns True if it is new, False if the same digest is recorded already, in whatever state the round
        is. Replaces an outcome `lost` or `declined` of the same node and round. In an asynchronous run the round
        gets the next `arrival`.

        Raises:
            Conflict: This node has another update in this round, or was rejected, or the round is not
                collecting any more.
            NotFound: No such round.
        """

    @abstractmethod
    def record_outcome(self, update: UpdateRecord) -> bool:
        """Record that a node declined, was lost, or sent an update that is rejected before it counts.

        Returns True if it was written, False if what is recorded stays as it is. Of a received update only verdict,
        reason and numbers change, and only to `rejected` (the rule left it out, or its node was evicted); statement,
        files and time of receipt stay. An accepted or rejected one stays as it is, and so does a round that has
        ended. Raises `NotFound` if there is no such round.
        """

    @abstractmethod
    def updates(self, run: str, number: int) -> list[UpdateRecord]:
        """One round's updates and outcomes, by node id."""

    @abstractmethod
    def begin_aggregation(self, run: str, number: int) -> None:
        """From collecting to aggregating: from now on no update is added to the round. Idempotent.

        Raises `Conflict` if the round has ended, `NotFound` if there is none.
        """

    @abstractmethod
    def commit_round(
        self,
        run: str,
        number: int,
        version: VersionRecord,
        verdicts: Sequence[UpdateRecord],
        *,
        bytes_received: int,
        bytes_sent: int,
        at: float,
    ) -> None:
        """From aggregating to committed, with the version, and each update's verdict, share and numbers.

        All at once. Idempotent for the same version.

        Raises:
            Conflict: Another version is recorded under this number, the round is not aggregating, or a
                verdict is about an update that is not recorded.
            NotFound: No such round.
        """

    # -- asynchronous runs -----------------------------------------------------------------------------------

    @abstractmethod
    def close_round(self, outcome: UpdateRecord, *, discard: bool = False) -> bool:
        """End an assignment without a decision (failed): its node declined, was lost, or was evicted.

        Returns True if it has ended without one. An update that was recorded meanwhile stays, and the assignment
        with it (False), unless it is undecided and `discard` says to reject it. Idempotent. Raises `NotFound`.
        """

    @abstractmethod
    def next_arrival(self, run: str) -> UpdateRecord | None:
        """The update that is to be decided on next: the first one recorded of those that were not yet."""

    @abstractmethod
    def decide(
        self,
        decision: DecisionRecord,
        state: PolicyStateRecord,
        verdicts: Sequence[UpdateRecord],
        version: VersionRecord | None,
        *,
        bytes_received: int,
        bytes_sent: int,
    ) -> None:
        """Record a decision, all at once: the assignment is decided, the verdicts, the policy's state, the version.

        Each accepted update's round gets the version. Idempotent for the same decision.

        Raises:
            Conflict: Another decision is recorded under this number, or it is not the next one; an update that
                arrived earlier is undecided; the assignment is not open; a verdict is about an update that is not
                recorded; another version is recorded under the version's number.
            NotFound: No such round.
        """

    @abstractmethod
    def decisions(self, run: str, after: int = 0) -> list[DecisionRecord]:
        """The decisions with a number above `after`, in order."""

    @abstractmethod
    def policy_state(self, run: str) -> PolicyStateRecord | None:
        """The policy's state after the last decision; None before the first."""

    @abstractmethod
    def updates_of(self, run: str, numbers: Sequence[int]) -> list[UpdateRecord]:
        """The updates of several rounds, by round and node."""

    @abstractmethod
    def add_version(self, version: VersionRecord) -> None:
        """Record a version outside a round. Idempotent; raises `Conflict` if another one has this number."""

    @abstractmethod
    def versions(self, run: str) -> list[VersionRecord]:
        """Every version of a run in order."""

    @abstractmethod
    def version(self, run: str, number: int) -> VersionRecord:
        """One version; -1: the newest. Raises `NotFound`."""

    @abstractmethod
    def record_metrics(self, run: str, version: int, metrics: Json, *, evaluated: bool) -> None:
        """Merge metrics into a version's; with `evaluated`, mark it as evaluated. Raises `NotFound`."""

    @abstractmethod
    def prune(
        self,
        run: str,
        *,
        versions: int,
        updates: int,
        metric: str,
        goal: Literal["max", "min"],
        pinned: Sequence[int] = (),
    ) -> list[str]:
        """Apply retention: let the files go that a run does not need any more. Every record stays for ever.

        Kept are the files of the newest `versions`, of the best by `metric` (by `nodes/METRIC` where no kept
        version has it; of equals the newer) and of `pinned` ones, and the payloads of open rounds and of the
        newest `updates` committed ones. The rest is marked as not kept, version 0 too. Of an asynchronous run also
        every version that an open assignment starts from, and every version and payload that its policy's state
        refers to.

        Returns the digests of files that no kept record of any run needs any more. Deleting them is the
        caller's.
        """

    @abstractmethod
    def referenced_digests(self) -> set[str]:
        """Digests of every file that some kept record needs (for cleaning up after a crash)."""

    # -- nodes and tokens ------------------------------------------------------------------------------------

    @abstractmethod
    def add_token(self, token: TokenRecord) -> None:
        """Record a join token."""

    @abstractmethod
    def token(self, secret_sha256: str) -> TokenRecord:
        """A token by the hash of its secret. Raises `NotFound`."""

    @abstractmethod
    def redeem_token(
        self, secret_sha256: str, csr_key_sha256: str, certificate: bytes, node: NodeRecord
    ) -> TokenRecord:
        """Bind a token to the first key, keep the certificate, and enrol the identity, all at once.

        An identity that was evicted, or has left, is enrolled again. With the same key a second time: changes
        nothing and returns the stored token. Whether the token has expired is the caller's to look at.

        Raises:
            Conflict: The token was used with another key, or is for another name, or the name belongs to an
                active identity, or the signing key to another one.
            NotFound: No such token.
        """

    @abstractmethod
    def renew_node(self, node: str, serial: str, expires_at: float, signing_key: bytes, key_id: str, at: float) -> None:
        """Give a node a new certificate and signing key; the old key stays on record. Raises `NotFound`."""

    @abstractmethod
    def signing_key(self, key_id: str) -> bytes:
        """A signing key, past or present, by its id. Raises `NotFound`."""

    @abstractmethod
    def node(self, node: str) -> NodeRecord:
        """An identity by its name. Raises `NotFound`."""

    @abstractmethod
    def nodes(self, *, role: Role = "node") -> list[NodeRecord]:
        """All identities of a role, by name, evicted ones too, with their counts of verdicts."""

    @abstractmethod
    def seen(
        self, node: str, at: float, *, version: str = "", device: str = "", tasks: Sequence[str] | None = None
    ) -> None:
        """Note that a node was here, and what it said of itself (empty: as before). Raises `NotFound`."""

    @abstractmethod
    def set_node_state(self, node: str, state: Literal["active", "evicted", "left"]) -> None:
        """Evict a node, or let it leave. Raises `NotFound`."""

    # -- events and settings ---------------------------------------------------------------------------------

    @abstractmethod
    def add_event(self, event: EventRecord) -> None:
        """Append an event."""

    @abstractmethod
    def events(self, *, run: str = "", node: str = "", limit: int = 100) -> list[EventRecord]:
        """Events, newest first, optionally of one run or node."""

    @abstractmethod
    def setting(self, key: str) -> str | None:
        """A small persistent setting (federation id, paused)."""

    @abstractmethod
    def set_setting(self, key: str, value: str) -> None:
        """Write a setting."""
