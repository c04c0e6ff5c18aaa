"""[policy] of `node.toml`: what a run may ask of this node, and what its operator shares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from covey.errors import NotNow, PolicyError
from covey.node.operator.hours import Day, Hours, span_of, zone_of
from covey.node.site_log.gathering import Sharing
from covey.spec import RunSpec
from covey.worker.jobs.training import TrainLimits

BUILT_IN_TASKS = ("digits", "idx-images", "characters", "synthetic", "grid-world")
Payload = Literal["parameters", "delta", "gradient"]


class Settings(BaseModel):
    """A section of `node.toml`: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class OutgoingFilterSettings(Settings):
    """[[policy.outgoing]]: a filter that updates and metrics pass on their way out (`covey.outgoing.filters`)."""

    name: str
    """Of the plug-in, or `package.module:Class`."""
    options: Mapping[str, JsonValue] = Field(default_factory=dict)


class Policy(Settings):
    """[policy]: what a run may ask of this node."""

    tasks: tuple[str, ...] = BUILT_IN_TASKS
    """Names of tasks that runs may train here."""
    allow_paths: tuple[str, ...] = ()
    """Tasks that runs may name by import path, each as `package.module:Class`."""
    payloads: tuple[Payload, ...] = ("parameters", "delta", "gradient")
    """What may leave this node."""
    label_counts: Literal["off", "noisy", "exact"] = "off"
    """What may leave of the number of examples of each label."""
    min_k: int = Field(default=0, ge=0)
    """Of how few examples statistics may say something; 0: no statistics leave."""
    representations: bool = False
    """Whether what a model makes of single examples may leave."""
    max_epsilon: float = Field(default=math.inf, gt=0)
    """Most that one run may spend of the privacy of this node's examples."""
    max_delta: float = Field(default=TrainLimits.max_delta, gt=0, lt=1)
    """Most delta for which that is so."""
    least_noise: float = Field(default=0.0, ge=0)
    """Least noise multiplier."""
    max_runs: int | None = Field(default=None, ge=1, le=16)
    """Most runs at once; None: as many as there is memory for."""
    share_logs: Sharing = "none"
    """What the coordinator gets of this node's log about its runs: nothing, what failed, or all of it."""
    scrub_paths: bool = False
    """Whether paths of this machine are taken out of what is shared, and of reasons."""
    min_participants: int = Field(default=1, ge=1)
    """Least nodes that a round is announced to have, this one included."""
    hours: str = ""
    """When work is begun, `22:00-06:00`; empty: at any time."""
    time_zone: str = ""
    """Whose hours these are, `Europe/Berlin`; empty: this machine's."""
    days: tuple[Day, ...] = ()
    """On which days they begin; empty: on all."""
    outgoing: tuple[OutgoingFilterSettings, ...] = ()
    """What updates and metrics pass before they leave, in this order."""

    @model_validator(mode="after")
    def _check_hours(self) -> Self:
        if self.hours:
            span_of(self.hours)
        zone_of(self.time_zone)
        return self

    @property
    def allowed_hours(self) -> Hours:
        """When work is begun."""
        return Hours(self.hours, self.time_zone, self.days)

    def check_mode(self, spec: RunSpec) -> None:
        """Hold a run's mode against the rules that it cannot keep.

        Raises:
            PolicyError: It cannot keep one of them.
        """
        facts, rule, why = spec.facts, "", ""
        if self.min_participants > 1 and facts.coordinated and not facts.synchronous:
            rule, why = "min_participants", "each update counts by itself"
        if self.allowed_hours.are_bounded and not facts.coordinated:
            rule, why = "hours", "peers wait for this node around the clock"
        if rule:
            raise PolicyError(
                f'mode "{spec.mode}" cannot keep a rule of this node\'s operator ([policy] {rule} in node.toml): {why}'
            )

    def check_hours(self, at: float) -> None:
        """Hold the time, in Unix seconds, against the operator's hours.

        Raises:
            NotNow: It is not within them.
        """
        if not self.allowed_hours.include(at):
            raise NotNow(f"outside this node's hours ({self.allowed_hours.text})")

    def check_participants(self, participants: int) -> None:
        """Hold how many nodes take part in a round, as was announced, against the operator's rule; 0: it was not said.

        Raises:
            NotNow: There are fewer.
        """
        if self.min_participants > 1 and participants < self.min_participants:
            announced = f"{participants} nodes take part" if participants else "it is not said how many nodes take part"
            raise NotNow(
                f"{announced}; this node's operator wants {self.min_participants} ([policy] min_participants in "
                "node.toml)"
            )
