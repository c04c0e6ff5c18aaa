"""What the round machine is told (events) and what it asks for (actions): plain frozen values, no behaviour.

Times are seconds of one clock that the caller chooses (the daemon uses Unix time).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from covey.storage.record.contract import RunState, Verdict

# -- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """The run is under this coordinator's care from now on: fresh, or restored after a restart."""

    now: float


@dataclass(frozen=True)
class NodeJoined:
    """A node has a live session (again)."""

    node: str
    now: float


@dataclass(frozen=True)
class NodeLost:
    """A node's session ended."""

    node: str
    now: float


@dataclass(frozen=True)
class NodeRemoved:
    """A node was evicted or left for good."""

    node: str
    now: float


@dataclass(frozen=True)
class UpdateStored:
    """A node's update for this round is durable and recorded."""

    node: str
    round: int
    now: float


@dataclass(frozen=True)
class NodeAnswered:
    """A node will send no (valid) update in this round: verdict `declined` or `rejected`."""

    node: str
    round: int
    verdict: Verdict
    reason: str
    now: float


@dataclass(frozen=True)
class TransferProgressed:
    """Bytes of a node's upload arrived."""

    node: str
    now: float


@dataclass(frozen=True)
class Tick:
    """Time has passed; sent at `wake_at` at the latest."""

    now: float


@dataclass(frozen=True)
class Aggregated:
    """The rule has looked at the updates. `rejected` maps nodes to reasons; too few were left if not `enough`."""

    round: int
    enough: bool
    rejected: Mapping[str, str]
    now: float


@dataclass(frozen=True)
class AggregationFailed:
    """Aggregating raised an error that trying again would not mend."""

    round: int
    reason: str


@dataclass(frozen=True)
class RoundCommitted:
    """The round's version is in the store."""

    round: int
    now: float


@dataclass(frozen=True)
class Evaluated:
    """The central evaluation of a version ended (with or without numbers)."""

    version: int
    now: float


@dataclass(frozen=True)
class NodeEvaluated:
    """A node answered, or refused, an evaluation of the last version."""

    node: str
    version: int
    now: float


@dataclass(frozen=True)
class PauseChanged:
    """The operator paused the coordinator, or let it go on."""

    paused: bool
    now: float


@dataclass(frozen=True)
class StopRequested:
    """The operator stops the run."""

    reason: str


Event = (
    Started
    | NodeJoined
    | NodeLost
    | NodeRemoved
    | UpdateStored
    | NodeAnswered
    | TransferProgressed
    | Tick
    | Aggregated
    | AggregationFailed
    | RoundCommitted
    | Evaluated
    | NodeEvaluated
    | PauseChanged
    | StopRequested
)

# -- actions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OpenRound:
    """Record a round, or a further attempt of it, before anything is sent. `roster` is the whole roster from now on."""

    round: int
    attempt: int
    invited: tuple[str, ...]
    roster: tuple[str, ...]


@dataclass(frozen=True)
class Assign:
    """Send the round's assignment to a node that is connected."""

    node: str
    round: int
    attempt: int


@dataclass(frozen=True)
class RecordOutcome:
    """Record that a node's part in the round ended without an accepted update."""

    node: str
    round: int
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Aggregate:
    """Close the round to further updates (durably), then aggregate those of `nodes`, in roster order."""

    round: int
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Commit:
    """Commit the aggregated round."""

    round: int


@dataclass(frozen=True)
class Cancel:
    """Tell a node to stop working on a round."""

    node: str
    round: int
    reason: str


@dataclass(frozen=True)
class EvaluateCentrally:
    """Evaluate a version on the task's central data."""

    version: int


@dataclass(frozen=True)
class AssignEvaluation:
    """Ask a node to evaluate the last version on its own data."""

    node: str
    version: int


@dataclass(frozen=True)
class Report:
    """What the run waits for, for people; empty: nothing."""

    reason: str


@dataclass(frozen=True)
class FinishRun:
    """The run is over: completed, failed or stopped."""

    state: RunState
    reason: str


SharedAction = Cancel | EvaluateCentrally | AssignEvaluation | Report | FinishRun
"""What the machines of both modes ask for."""
Action = OpenRound | Assign | RecordOutcome | Aggregate | Commit | SharedAction


@dataclass(frozen=True)
class RoundPolicy:
    """The numbers of a specification that the machine goes by (see `covey.spec`)."""

    count: int
    participants: float | int = 1.0
    min_nodes: int = 1
    quorum: float = 1.0
    deadline_s: float = 600.0
    hard_deadline_s: float = 3600.0
    rejoin_s: float = 30.0
    max_retries: int = 3
    fail_when_short: bool = False
    seed: int = 0
    evaluate_every: int = 1
    evaluate_centrally: bool = True
    evaluate_on_nodes: bool = True
    progress_s: float = 10.0
    """An upload counts as making progress if bytes came within this time."""


@dataclass(frozen=True)
class Restored:
    """What the store knows of an unfinished run: the machine's state without its clocks."""

    committed: int = 0
    """Rounds committed."""
    round: int = 0
    """The round in progress, or 0."""
    attempt: int = 0
    aggregating: bool = False
    invited: tuple[str, ...] = ()
    answers: Mapping[str, Verdict] = field(default_factory=dict)
    """Node to verdict in the round in progress (`received`, `rejected`, `declined`, `lost`)."""
    unevaluated: tuple[int, ...] = ()
    """Committed versions whose central evaluation is still to be done."""
