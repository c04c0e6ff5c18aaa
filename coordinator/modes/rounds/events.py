"""What the round machine is told and asks for beside what all machines share (`covey.machines.protocol`).

Plain frozen values, no behaviour. Times are seconds of one clock that the caller chooses (the daemon uses Unix time).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from covey.machines.protocol import SharedAction, SharedEvent, Verdict
from covey.machines.stopping import NO_RULES, StopRules

# -- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PhasePlanned:
    """The method has looked at a phase's answers, and asks these nodes in the next phase, or in the same again."""

    round: int
    phase: int
    params: Mapping[str, str]
    """Node to JSON of the method's own."""
    rejected: Mapping[str, str]
    """Node to reason: its answers in this round do not count."""
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
class UpdatesLost:
    """Recorded updates turned out to be damaged or missing when the round was aggregated: nothing is made of it."""

    round: int
    nodes: tuple[str, ...]
    """Whose update of phase 1 is lost, and is on record no more; none, where what is lost is of a later phase."""
    now: float


@dataclass(frozen=True)
class RoundCommitted:
    """The round's version is in the store."""

    round: int
    now: float
    sent_bytes: int = 0
    """What nodes sent of updates in it."""
    value: float | None = None
    """Where nodes evaluate what they train from: of the metric that the run goes by, of the version before."""


RoundEvent = SharedEvent | PhasePlanned | Aggregated | AggregationFailed | UpdatesLost | RoundCommitted

# -- actions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OpenRound:
    """Record a round, or a further attempt of it, before anything is sent. `roster` is the whole roster from now on."""

    round: int
    attempt: int
    invited: tuple[str, ...]
    roster: tuple[str, ...]


@dataclass(frozen=True)
class OpenPhase:
    """Record a further phase of the round before anything is sent, and which answers do not count."""

    round: int
    closed: int
    """The phase whose answers led to it."""
    phase: int
    params: Mapping[str, str]
    rejected: Mapping[str, str]


@dataclass(frozen=True)
class Assign:
    """Send the round's assignment, in the phase that is open, to a node that is connected."""

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
    phase: int = 1
    """Declined, lost or late in this one; a node that is rejected is so in all."""


@dataclass(frozen=True)
class Aggregate:
    """Close the round to further updates (durably), then aggregate those of `nodes`, in roster order.

    Where the method has phases it is asked first: it may open another one instead.
    """

    round: int
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Commit:
    """Commit the aggregated round."""

    round: int


RoundAction = OpenRound | OpenPhase | Assign | RecordOutcome | Aggregate | Commit | SharedAction

# -- what the machine is given --------------------------------------------------------------------------------------


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
    phases: int = 1
    """How many answers of a node a round may have."""
    only: tuple[str, ...] = ()
    """The nodes that may be asked; none: all."""
    evaluate_every: int = 1
    evaluate_centrally: bool = True
    evaluate_on_nodes: bool = True
    why_last: str = ""
    """Why the run has `count` rounds, where its specification has more."""
    progress_s: float = 10.0
    """An upload counts as making progress if bytes came within this time."""
    stop: StopRules = NO_RULES
    """What ends the run before."""


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
    """Node to verdict in the round in progress (`received`, `rejected` or one of `NO_UPDATE`), in its phase 1."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Node to why its answer does not count, of those."""
    phase: int = 1
    """Of the round in progress."""
    asked: tuple[str, ...] = ()
    """The nodes that were asked in a phase after the first."""
    phase_answers: Mapping[str, Verdict] = field(default_factory=dict)
    """Node to verdict in a phase after the first, of those that were asked."""
    attendance: tuple[tuple[int, str, Verdict], ...] = ()
    """Round, node and verdict in phase 1 of the rounds committed last, in their order."""
    unevaluated: tuple[int, ...] = ()
    """Committed versions whose central evaluation is still to be done."""
    values: tuple[tuple[int, float], ...] = ()
    """Versions with their value of the metric that the run goes by, in order."""
    sent_bytes: int = 0
    """What nodes sent of updates in all rounds."""
