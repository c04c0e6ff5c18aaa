"""[privacy]: what differential privacy protects, and with how much noise; [stop]: what ends a run before its rounds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import override

from covey.spec.sections import Idle, NonNegative, Positive, Section, Wrong


class PrivacySection(Section):
    """[privacy]: what of one example, or of one node, the model may show."""

    unit: Literal["example", "node"]
    """What is hidden: whether one example of a node contributes (each node clips its examples' gradients and adds
    noise), or whether one node does (the coordinator clips its update and adds noise to the mean)."""
    clip: Positive
    """C: the l2 norm, over all tensors at once, to which an example's gradient, or a node's update, is clipped."""
    noise: Positive
    """z, the noise multiplier: the sum of what was clipped gets Gaussian noise of standard deviation z C."""
    delta: float = Field(default=1e-5, gt=0, lt=1)
    """But for this probability the spent epsilon holds."""
    sampling: float = Field(default=1.0, gt=0, le=1)
    """q, of unit "example": each example is in each step with this probability (Poisson), drawn from the node's own
    secret; training.batch_size has no part in it."""
    reproducible: bool = False
    """Draw noise and examples from the run's seed, which the coordinator knows: for tests and simulations. The run is
    not private, and says so."""

    @override
    def impossible(self) -> Iterator[Wrong]:
        if self.unit == "node" and self.sampling != 1:
            text = "which nodes take part is on record, so their sampling hides nothing; leave it out"
            yield "sampling", text, self.sampling


class StopSection(Section):
    """[stop]: what ends a run before its last round."""

    epsilon: Annotated[Positive | None, Field(exclude_if=lambda epsilon: epsilon is None)] = None
    """The run ends before the round that would spend more than this of its privacy."""
    target: Annotated[float | None, Field(allow_inf_nan=False, exclude_if=lambda target: target is None)] = None
    """The run ends once a version's [evaluation] metric is this, or better ([evaluation] goal)."""
    patience: Annotated[int | None, Field(ge=1, exclude_if=lambda patience: patience is None)] = None
    """The run ends after so many evaluations in a row of which none was better than the best before."""
    min_delta: Annotated[NonNegative, Field(exclude_if=lambda delta: delta == 0)] = 0.0
    """With `patience`: by how much more than this a value is better."""
    time_s: Annotated[Positive | None, Field(exclude_if=lambda time_s: time_s is None)] = None
    """No further round is opened, and no further update asked for, so many seconds after the run's start."""
    bytes: Annotated[int | None, Field(ge=1, exclude_if=lambda count: count is None)] = None
    """The run ends once nodes have sent so many bytes of updates."""

    @property
    def by_metric(self) -> tuple[str, ...]:
        """The keys that go by what versions are worth."""
        return tuple(key for key in ("target", "patience") if getattr(self, key) is not None)

    @override
    def impossible(self) -> Iterator[Wrong]:
        if self.min_delta and self.patience is None:
            yield "min_delta", Idle.without("patience"), self.min_delta
