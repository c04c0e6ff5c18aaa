"""What the machine of mode `async` is told and asks for, beside what all machines share (`covey.machines.protocol`).

An assignment has a number, from 1 over the whole run: it is the `round` of the update's signed statement. Times are
seconds of one clock that the caller chooses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from covey.machines.protocol import SharedAction, SharedEvent, Verdict
from covey.machines.stopping import NO_RULES, StopRules

# -- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decided:
    """The update that was next is settled durably. `version` is the newest one now.

    `counted` is false where the policy was not asked (the node had been evicted).
    """

    node: str
    number: int
    version: int
    counted: bool
    now: float
    sent_bytes: int = 0
    """How large the update was."""


@dataclass(frozen=True)
class NothingToDecide:
    """The record has no update that was not decided on."""

    now: float


@dataclass(frozen=True)
class DecisionFailed:
    """Deciding raised an error that trying again would not mend."""

    number: int
    reason: str


AsyncEvent = SharedEvent | Decided | NothingToDecide | DecisionFailed

# -- actions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OpenAssignment:
    """Record that a node is to train from a version, before anything is sent. `roster` is the whole roster from now."""

    node: str
    number: int
    base_version: int
    roster: tuple[str, ...]


@dataclass(frozen=True)
class SendAssignment:
    """Send a recorded assignment to its node, which is connected."""

    node: str
    number: int


@dataclass(frozen=True)
class CloseAssignment:
    """Record that an assignment ended without an update; if one came meanwhile, answer with `UpdateStored` at once."""

    node: str
    number: int
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class DecideNext:
    """Decide on the update that was recorded first of those that were not decided on; the record knows which."""


AsyncAction = OpenAssignment | SendAssignment | CloseAssignment | DecideNext | SharedAction

# -- what the machine is given --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AsyncRunPolicy:
    """The numbers of a specification that the machine goes by (see `covey.spec`)."""

    updates: int
    """The run ends when so many updates have been decided on."""
    min_nodes: int = 1
    deadline_s: float = 600.0
    """How long an assignment may go without a sign of progress."""
    hard_deadline_s: float = 3600.0
    """How long the nodes have at the most for the evaluation of the last version."""
    rejoin_s: float = 30.0
    """How long a node without a connection is still expected back."""
    retry_s: float = 1.0
    """How long a node waits for work after an assignment of its ended without an update; doubled each time in a
    row, up to `retry_max_s`: a node that refuses at once would else be asked without a pause."""
    retry_max_s: float = 60.0
    max_retries: int = 3
    """When every node has failed more often than this in a row, the run says so."""
    fail_when_short: bool = False
    """Whether the run fails then, instead of asking on."""
    evaluate_every: int = 1
    """Versions from one central evaluation to the next; 0: none."""
    evaluate_centrally: bool = True
    evaluate_on_nodes: bool = True
    stop: StopRules = NO_RULES
    """What ends the run before."""


@dataclass(frozen=True)
class OpenWork:
    """An assignment whose update has not come."""

    number: int
    base_version: int


@dataclass(frozen=True)
class AsyncRestored:
    """What the store knows of an unfinished run: the machine's state without its clocks."""

    decided: int = 0
    """Updates decided on."""
    last_number: int = 0
    """The highest assignment number there is."""
    version: int = 0
    """The newest version."""
    open: Mapping[str, OpenWork] = field(default_factory=dict)
    """Node to its open assignment."""
    undecided: Mapping[int, str] = field(default_factory=dict)
    """Assignments whose update is recorded, but not decided on, and their nodes."""
    unevaluated: tuple[int, ...] = ()
    """Versions whose central evaluation is still to be done."""
    values: tuple[tuple[int, float], ...] = ()
    """Versions with their value of the metric that the run goes by, in order."""
    sent_bytes: int = 0
    """What nodes sent of updates that were decided on."""
