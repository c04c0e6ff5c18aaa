"""What an asynchronous policy is: what becomes of each update as it comes, one at a time.

A policy is pure: what it remembers is a small value that names earlier updates by assignment number and models by
version, never a tensor. The caller opens the files of what was named, keeps them for as long as the policy pins them,
and puts every decision into the record.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from covey.aggregation.verdicts import Verdict
from covey.errors import RunFailed, SpecError
from covey.options import PluginOptions
from covey.plugins import Kind, Pluggable
from covey.validation import explain
from covey.vectors import Vector

__all__ = [
    "ASYNC_POLICIES",
    "Arrival",
    "AsyncContext",
    "AsyncPolicy",
    "AsyncStep",
    "Decision",
    "Pinned",
    "PluginOptions",
    "PolicyState",
    "Records",
    "Vector",
    "Verdict",
]


@dataclass(frozen=True)
class Arrival:
    """One node's update, with nothing against it so far.

    Attributes:
        number: Its assignment's number, unique in the run.
        node: The node's id.
        weight: As declared (a number of examples).
        base_version: The version that it was computed on, by the coordinator's own record.
        reader: Its vector, finite: a delta or a gradient, as the run's payload has it; parameters come as
            differences from the newest version.
    """

    number: int
    node: str
    weight: float
    base_version: int
    reader: Vector


class Records(Protocol):
    """What the policy pinned, opened when asked for."""

    def update(self, number: int) -> Vector:
        """The vector of an earlier update."""

    def held(self, number: int) -> Arrival:
        """An earlier update that is held, whole."""

    def model(self, version: int) -> Vector:
        """A model version."""


@dataclass(frozen=True)
class AsyncContext:
    """What a policy may know of the run at one decision. New fields come with defaults.

    Attributes:
        version: The newest version's number.
        roster: All nodes of the run in order, only ever appended to.
        records: What it pinned, and the newest version.
        weights_by: As `[weights] by`.
        max_share: As `[weights] max_share`.
        seed: The run's seed.
    """

    version: int
    roster: tuple[str, ...]
    records: Records
    weights_by: Literal["examples", "equal"] = "examples"
    max_share: float = 1.0
    seed: int = 0

    def staleness(self, arrival: Arrival) -> int:
        """How many versions an update is behind the newest one; at least 0."""
        return self.version - arrival.base_version

    def index(self, node: str) -> int:
        """A node's place in the roster.

        Raises:
            RunFailed: It is not in it.
        """
        if node not in self._places:
            raise RunFailed(f"node {node!r} is not in the run's roster")
        return self._places[node]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {node: i for i, node in enumerate(self.roster)}


@dataclass(frozen=True)
class AsyncStep:
    """What makes the next version.

    Attributes:
        direction: float32 `[d]`, for the server optimizer, of the updates' kind (where nodes send gradients the
            model is moved against it).
        shares: The updates that have a part in it by number, with their weights among each other.
        mixing: How far the part `buffers` goes from the newest version's values to those of these updates, in
            [0, 1].
        buffers: How the updates' buffers are combined.
    """

    direction: Vector
    shares: Mapping[int, float]
    mixing: float = 1.0
    buffers: Literal["mean", "median"] = "mean"


class PolicyState(BaseModel):
    """Base of what a policy remembers: frozen, JSON-able, small (a few numbers a node)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


S = TypeVar("S", bound=PolicyState)


@dataclass(frozen=True)
class Decision(Generic[S]):
    """What a policy decided.

    Attributes:
        verdicts: The arrival's first, then those of held updates that leave; each with its assignment's number.
        state: What to remember.
        step: What makes the next version; None: there is none.
    """

    verdicts: tuple[Verdict, ...]
    state: S
    step: AsyncStep | None = None


@dataclass(frozen=True)
class Pinned:
    """What a state refers to: assignment numbers of updates (held ones too) and versions, each sorted."""

    updates: tuple[int, ...]
    versions: tuple[int, ...] = ()


class AsyncPolicy(Pluggable, Generic[S]):
    """A policy. Its docstring states what it assumes on n and f, paper and equation, and deviations.

    Class attributes:
        Options: The model of its options (`[aggregation.options]`).
        State: The model of what it remembers; all fields have defaults, which are the state at first.
        compares_gradients: Whether a node's successive updates are compared as gradients of one function, so that
            stochastic codecs, several local steps and worker momentum break its assumption.
        mixes_parameters: Whether it can use the payload `parameters`: it compares no update with another, so that
            those of an old version are as good as a change.
    """

    State: ClassVar[type[PolicyState]] = PolicyState
    compares_gradients: ClassVar[bool] = False
    mixes_parameters: ClassVar[bool] = False

    def min_nodes(self) -> int:
        """The fewest nodes with which it works and its guarantee holds; at least 1."""
        return 1

    def require(self, nodes: int, what: str = "the run has") -> None:
        """Refuse too few nodes.

        Args:
            nodes: How many there are, or at least will be.
            what: What has so many, for the message.

        Raises:
            SpecError: Fewer than `min_nodes()`.
        """
        if nodes < self.min_nodes():
            raise SpecError(f"{type(self).__name__} needs at least {self.min_nodes()} nodes, {what} {nodes}")

    def load_state(self, text: str) -> S:
        """The state from its JSON; of an empty text, the first one.

        Raises:
            RunFailed: It is not this policy's.
        """
        try:
            return cast(S, self.State.model_validate_json(text) if text else self.State())
        except ValidationError as error:
            raise RunFailed(f"not a state of {type(self).__name__}: {explain(error, self.State)}") from error

    @abstractmethod
    def decide(self, arrival: Arrival, state: S, context: AsyncContext) -> Decision[S]:
        """Decide on one update; the same arguments always give the same decision.

        Args:
            arrival: The update.
            state: What the last decision's `Decision.state` was.
            context: The run at this moment.

        Raises:
            RunFailed: It cannot be applied (too few nodes in the roster).
        """

    def pinned(self, state: S) -> Pinned:
        """What has to be kept for the decisions to come; bounded by the number of nodes."""
        return Pinned(())

    def dropped(self, state: S, numbers: Collection[int]) -> S:
        """The state without these updates: no later decision may use them.

        They are held ones whose nodes were evicted, and of those that are pinned the ones whose files are lost. A
        policy that pins updates overrides it: if it opens a dropped one, or goes on pinning a lost one, the run
        fails. The verdicts on held ones are the caller's.
        """
        return state


ASYNC_POLICIES: Kind[AsyncPolicy[Any]] = Kind("async-policy", "covey.async_policies", AsyncPolicy, "aggregation")
