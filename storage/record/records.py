"""What a store records: plain frozen values. Times are Unix seconds, sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from covey.artifact import Artifact
from covey.machines.protocol import RunState as RunState
from covey.machines.protocol import Verdict as Verdict
from covey.parts import PartFile, collected_node

RoundState = Literal["collecting", "aggregating", "committed", "decided", "failed"]
"""`decided`: an asynchronous run's assignment whose update was decided on."""
Role = Literal["node", "admin", "auditor", "member"]
Json = Mapping[str, object]


@dataclass(frozen=True)
class RunRecord:
    """One run. `roster` is the ordered node ids, fixed at the start and only ever appended to."""

    run: str
    name: str
    mode: str
    spec: str
    """Canonical JSON of the specification."""
    seed: int
    state: RunState
    reason: str
    submitted_at: float
    started_at: float | None = None
    ended_at: float | None = None
    roster: tuple[str, ...] = ()
    parts: int = 0
    """Into how many parts experiment data is cut; fixed at the start."""
    layout: str = ""
    """Canonical JSON of the model's layout; empty until version 0 is committed."""


@dataclass(frozen=True)
class RoundRecord:
    """One round. Rounds count from 1; round r makes version r from version r - 1 (`base_version`).

    In an asynchronous run: one assignment of one node (`invited`), which trains from the version that was the newest
    when it was made (`base_version`); versions have numbers of their own.
    """

    run: str
    round: int
    attempt: int
    state: RoundState
    invited: tuple[str, ...]
    base_version: int
    started_at: float
    attempt_at: float
    """When the present attempt began: deadlines count from here."""
    committed_at: float | None = None
    bytes_received: int = 0
    bytes_sent: int = 0
    reason: str = ""
    accepted: int = 0
    """Nodes whose update has the verdict accepted (counted from the answers, as those that follow)."""
    rejected: int = 0
    metrics: Json = field(default_factory=dict)
    """Those of the version that this round made (`version`); empty until evaluated."""
    version: int | None = None
    """The version that it made; in an asynchronous run the one that its update went into. None: none (yet)."""
    part: int | None = None
    """In an asynchronous run: the part of experiment data of a node that came when all were dealt. None: it has the
    part of its place in the roster, or there was none for it."""
    arrival: int | None = None
    """In an asynchronous run: the order in which updates were recorded, from 1. None: there is no update yet."""
    phase: int = 1
    """Which answers it waits for now; a further attempt begins with phase 1 again."""
    declined: int = 0
    lost: int = 0
    late: int = 0
    received: int = 0
    """Nodes whose update is here, and was not decided on yet."""
    last_reason: str = ""
    """Of the newest answer that is no update that counts: which node, its verdict, and why."""


PartRecord = PartFile


@dataclass(frozen=True)
class UpdateRecord:
    """What one node answered in one round: an update with its verdict, or that it declined or was lost."""

    run: str
    round: int
    node: str
    verdict: Verdict
    reason: str = ""
    digest: str = ""
    """SHA-256 (hex) of the signed statement; empty for declined and lost."""
    statement: bytes = b""
    signature: bytes = b""
    key_id: str = ""
    base_sha256: str = ""
    parts: tuple[PartRecord, ...] = ()
    bytes: int = 0
    weight: float = 0.0
    """As declared by the node."""
    share: float = 0.0
    """The effective share in the result, set at commit."""
    numbers: Json = field(default_factory=dict)
    metrics: Json = field(default_factory=dict)
    received_at: float | None = None
    kept: bool = True
    """Whether the payload files are still there."""
    phase: int = 1
    """Of the round: which of its answers this is."""


def step_verdict(update: UpdateRecord) -> Json:
    """What a step's `verdicts` say of an update that is judged in it; the phase is named where it is not the first."""
    names = ("round", "node", "verdict", "reason", "share")
    phase = {"phase": update.phase} if update.phase > 1 else {}
    return {name: getattr(update, name) for name in names} | {"numbers": dict(update.numbers)} | phase


@dataclass(frozen=True)
class VersionRecord:
    """A committed global state."""

    run: str
    version: int
    model_sha256: str
    artifact: Artifact
    """The safetensors file."""
    created_at: float
    parent_sha256: str = ""
    state: tuple[PartRecord, ...] = ()
    """Server-optimizer and aggregator state files that the next round needs."""
    statement: bytes = b""
    """The signed commit: canonical JSON chained by the digest of the commit before it."""
    signature: bytes = b""
    metrics: Json = field(default_factory=dict)
    """Central evaluation, and `nodes/NAME` for those merged from the nodes; empty until evaluated."""
    evaluated: bool = False
    kept: bool = True

    @property
    def members(self) -> Mapping[str, Artifact]:
        """In a run without a global model, where the model stays as it is: node to its own file in this version.

        None where several files of each node are kept: none of them alone is a model then.
        """
        if self.model_sha256 != self.parent_sha256:
            return {}
        files = [(node, file) for file in self.state if (node := collected_node(file.name))]
        if len({file.name.removesuffix(node) for node, file in files}) > 1:
            return {}
        return {node: file.artifact for node, file in files}


@dataclass(frozen=True)
class SignedUpdateRecord(UpdateRecord):
    """An update with what it takes to check its signature."""

    base_version: int = 0
    """The version that its assignment started from, by the coordinator's own record."""
    signing_key: bytes = b""
    """Raw Ed25519 public key that `key_id` names; empty if it is not on record."""


@dataclass(frozen=True)
class StepRecord:
    """One step of a run, in either mode: answers in, verdicts and a state out, and perhaps a version.

    Steps are numbered from 1, in one sequence for each run. A synchronous round has a step for each phase that it opens
    after its first, and one for its commit; a decision of an asynchronous run is the step of the decision's number.
    """

    run: str
    number: int
    cause: tuple[tuple[int, int], ...]
    """(group, phase) of the answers that it took: a round, or an asynchronous run's assignment, and its last phase."""
    newest: int
    """The newest version before it."""
    version: int | None
    """The version that it made; None: none."""
    roster: int
    """How many nodes the run's roster had."""
    verdicts: tuple[Json, ...]
    """`{"round", "node", "verdict", "reason", "share", "numbers"}` of each update that was judged."""
    decided_at: float
    state: str = ""
    """Canonical JSON of the state after it. Only the newest step has it whole; empty: none, or not kept."""
    state_sha256: str = ""
    """Of the state after it (UTF-8 of the JSON text); empty: it has none."""
    pinned_updates: tuple[int, ...] = ()
    """Groups whose updates' files the state refers to."""
    pinned_versions: tuple[int, ...] = ()
    """Versions that the state refers to."""
    opens: tuple[Json, ...] = ()
    """`{"phase", "node", "params"}` of each assignment that it opens: a round goes on with these nodes."""
    accepted: int = 0
    """How many updates of the run had been accepted with it; counted by the store when the step is committed."""
    rejected: int = 0

    @property
    def group(self) -> int:
        """The round, or the assignment, whose answers it took."""
        return self.cause[-1][0]

    @classmethod
    def before_first(cls, run: str) -> StepRecord:
        """What there is before a run's first step."""
        return cls(run, 0, (), newest=0, version=None, roster=0, verdicts=(), decided_at=0.0)


@dataclass(frozen=True)
class RunSummary:
    """What a run has come to."""

    version: int = 0
    """The newest version's number; 0 also where there is none yet."""
    model_sha256: str = ""
    """Of the newest version; empty: there is none."""
    updates_decided: int = 0
    """How many decisions an asynchronous run has made; 0 in other modes."""
    metrics: Json = field(default_factory=dict)
    """Of the newest version that has some."""
    accepted: int = 0
    """Updates accepted by the run's steps."""
    rejected: int = 0
    """Updates rejected in them; not those of rounds and assignments that failed."""


@dataclass(frozen=True)
class NodeRecord:
    """An enrolled identity (of any role)."""

    node: str
    role: Role
    state: Literal["active", "evicted", "left"]
    enrolled_at: float
    last_seen_at: float | None = None
    certificate_serial: str = ""
    certificate_expires_at: float = 0.0
    previous_serial: str = ""
    """Of the certificate with which the newest one was asked for, until the newest one is used; then empty."""
    signing_key: bytes = b""
    """Raw Ed25519 public key in use now."""
    key_id: str = ""
    version: str = ""
    device: str = ""
    tasks: tuple[str, ...] = ()
    accepted: int = 0
    """Rounds, over all runs, in which its update was accepted; and so on."""
    rejected: int = 0
    declined: int = 0
    lost: int = 0
    late: int = 0
    last_reason: str = ""
    """Of its newest answer that was no update that counts: run, round, verdict and why."""


@dataclass(frozen=True)
class ContributionRecord:
    """What one node did in the rounds (or assignments) of a run; a round with several phases counts once."""

    node: str
    asked: int = 0
    """Rounds in which it answered, or was given up."""
    accepted: int = 0
    """Rounds in which its update was accepted."""
    rejected: int = 0
    declined: int = 0
    lost: int = 0
    late: int = 0
    last_round: int = 0
    """The newest round in which it had no update that counts; 0: there is none."""
    last_verdict: str = ""
    last_reason: str = ""


@dataclass(frozen=True)
class TokenRecord:
    """A join token: only the hash of its secret is stored."""

    secret_sha256: str
    name: str
    """Of the identity; where it has several uses, names are this and a number: NAME-1, NAME-2, ..."""
    role: Role
    created_at: float
    expires_at: float
    uses: int = 1
    """How many identities may be enrolled with it."""
    used: int = 0
    """How many were."""

    @property
    def uses_left(self) -> int:
        """How many identities can still be enrolled with it, if it does not expire before."""
        return self.uses - self.used


@dataclass(frozen=True)
class RedemptionRecord:
    """One use of a join token, by one pair of keys."""

    secret_sha256: str
    csr_key_sha256: str
    """Digest of the keys."""
    node: str
    """The name that they were enrolled under."""
    certificate: bytes
    """What they were given (PEM), to be given again."""


@dataclass(frozen=True)
class EventRecord:
    """Something worth remembering: an eviction, a refusal, a restart, a waiting run."""

    at: float
    kind: str
    run: str = ""
    node: str = ""
    detail: Json = field(default_factory=dict)
    id: int = field(default=0, compare=False)
    """Its number in the record, higher than those of all before it; 0: not recorded yet."""


@dataclass(frozen=True)
class GossipMemberRecord:
    """A node of a gossip run.

    Attributes:
        run: The run's id.
        node: Its name.
        address: Where peers call it, `HOST:PORT`; empty: it only calls.
        fingerprint: SHA-256 (hex) of its certificate's public key.
        state: invited, working, completed, left, declined, failed, retired, lost, late or evicted.
        reason: Why.
    """

    run: str
    node: str
    address: str
    fingerprint: str
    state: str = "invited"
    reason: str = ""


@dataclass(frozen=True)
class GossipStatementRecord:
    """What a node signed of its part in a gossip run.

    Attributes:
        run: The run's id.
        node: Who signed.
        incarnation: Which life of the node.
        number: Of the incarnation's statements, from 1.
        step: How many steps it has done.
        told: Of how many steps statements have told, with this one.
        key_id: Of the key that signed.
        received_at: Unix seconds.
        statement: The exact bytes.
        signature: Ed25519.
    """

    run: str
    node: str
    incarnation: int
    number: int
    step: int
    told: int
    key_id: str
    received_at: float
    statement: bytes
    signature: bytes
