"""[training], and the schedules of its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from covey.spec.bounds import Most
from covey.spec.sections import Beta, ExtraOptions, NonNegative, PluginName, Positive, Section, Wrong

MOST_STEPS, MOST_EPOCHS = 1_000_000, 10_000
"""That one round may ask of a node."""
STALL_S = 540.0
"""[training] stall_s where a run says nothing; then it is left out of the JSON, as stored specifications have it."""
MOST_GPU_MEMORY_GIB = 100_000
"""More than any node's GPU has."""


class Schedule(Section):
    """A per-round factor on one training number. Round r counts from 0."""

    kind: PluginName
    factor: Positive = 1.0
    """exponential: factor ** r. step: factor ** (r // every). linear, cosine: the factor reached at the last round."""
    every: int = Field(default=1, ge=1)
    """Rounds a step lasts (kind = "step")."""
    warmup: int = Field(default=0, ge=0)
    """Rounds of linear warm-up before the schedule."""
    options: ExtraOptions = Field(default={})
    """Options of a kind that is not one of Covey's own."""


class TrainingSection(Section):
    """[training]: the local training on every node."""

    optimizer: PluginName = "sgd"
    learning_rate: Positive = 0.1
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Used by optimizer = "momentum"."""
    nesterov: bool = False
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Used by optimizer = "adam" and "adamw"."""
    weight_decay: NonNegative = 0.0
    batch_size: int = Field(default=32, ge=1)
    drop_last: Annotated[bool, Field(exclude_if=lambda drop_last: not drop_last)] = False
    """Leave out an epoch's last batch where it is shorter than the others (unless it is the only one)."""
    workers: Annotated[int, Field(ge=0, le=64, exclude_if=lambda workers: not workers)] = 0
    """Processes beside the training that load examples ahead of it; 0: the training loads them itself."""
    local_epochs: Annotated[int | None, Field(ge=1), Most(MOST_EPOCHS)] = None
    local_steps: Annotated[int | None, Field(ge=1), Most(MOST_STEPS)] = None
    local_first: Annotated[int, Field(ge=0, exclude_if=lambda steps: not steps), Most(MOST_STEPS)] = 0
    """In so many first steps of a round only the tensors are trained that stay on the node, in the others only those
    that are shared (FedRep); 0: all of them in every step."""
    clip_norm: Positive | None = None
    """Clip each step's gradient to this global l2 norm."""
    precision: Literal["float32", "bf16"] = "float32"
    """bf16: autocast where the device has it, else float32."""
    deterministic: Literal["require", "best-effort"] = "best-effort"
    threads: int = Field(default=1, ge=1, le=256)
    gpu_memory_gib: Annotated[Positive | None, Field(exclude_if=lambda gib: gib is None), Most(MOST_GPU_MEMORY_GIB)] = (
        None
    )
    """GiB that training takes of a node's GPU: runs share one as far as they fit together; None: it is not counted."""
    stall_s: Annotated[Positive, Field(exclude_if=lambda stall_s: stall_s == STALL_S)] = STALL_S
    """How long training or evaluation may go without a step (loading the data counts): then its worker is ended."""
    schedule: dict[Literal["learning_rate", "momentum", "weight_decay"], Schedule] = Field(default={})
    options: ExtraOptions = Field(default={})
    """Options of an optimizer that is not one of Covey's own."""

    @model_validator(mode="before")
    @classmethod
    def _one_epoch_by_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("local_epochs") is None and data.get("local_steps") is None:
            return {**data, "local_epochs": 1}
        return data

    @override
    def impossible(self) -> Iterator[Wrong]:
        if self.local_epochs is not None and self.local_steps is not None:
            yield "local_steps", "give local_epochs or local_steps, not both", self.local_steps
        if self.local_steps is not None and self.local_first >= self.local_steps:
            yield (
                "local_first",
                "no step would be left for what is shared; choose fewer than local_steps",
                self.local_first,
            )
