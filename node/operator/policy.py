"""[policy] of `node.toml`: what a run may ask of this node, and what its operator shares."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from covey.node.site_log.gathering import Sharing
from covey.worker.jobs.training import TrainLimits

BUILT_IN_TASKS = ("digits", "idx-images", "characters", "synthetic", "grid-world")
Payload = Literal["parameters", "delta", "gradient"]


class Settings(BaseModel):
    """A section of `node.toml`: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
