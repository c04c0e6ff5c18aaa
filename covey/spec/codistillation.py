"""How nodes learn from each other's predictions, whether they exchange through a coordinator or among themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from covey.options import PluginOptions
from covey.spec.training import Schedule, TrainingSection


class CodistillOptions(PluginOptions):
    """Options of `codistill`, the method and the protocol of gossip; a round is there a step."""

    exchange: Literal["predictions", "checkpoints"] = "predictions"
    """What nodes exchange once a round: predictions on examples that all have, or their models."""
    weight: float = Field(default=1.0, ge=0)
    """How much the others' predictions count beside a node's own loss; 0: every node trains alone."""
    burn_in: int = Field(default=0, ge=0)
    """Rounds at the beginning in which they do not count."""
    divergence: Literal["kl", "mse"] = "kl"
    """Of a node's predictions from the others': Kullback-Leibler of probabilities, or the mean square of logits."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """By which share a node's own labels are replaced by equal ones."""
    schedule: dict[Literal["weight", "label_smoothing"], Schedule] = Field(default={})
    """How these change from round to round, as in [training.schedule]; that of the weight begins after the burn-in."""
    classes: int | None = Field(default=None, ge=2, le=1_000_000)
    """How many numbers a prediction has (`exchange = "predictions"`)."""
    batch_size: int | None = Field(default=None, ge=1)
    """Common examples of a step; default: as many as [training] batch_size."""
    learn_common: bool = False
    """Whether the labels of common examples are learned, too."""

    def refusals(self, training: TrainingSection, at: str) -> Iterator[tuple[str, str]]:
        """What an exchange needs of the specification, and does not have: the key, and the reason with a way out.

        Args:
            training: The run's.
            at: Where these options stand in the user's file.
        """
        if self.exchange == "checkpoints":
            for key in ("classes", "batch_size", "learn_common"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    yield f"{at}.{key}", 'it is for exchange = "predictions"; leave it out'
            return
        if self.classes is None:
            yield f"{at}.classes", "say how many numbers a prediction has: as many as there are classes"
        if training.local_steps is None:
            text = "predictions are for the batches of a round, as many on every node; write local_steps, not epochs"
            yield "training.local_steps", text

    def examples(self, training: TrainingSection) -> int:
        """Of how many common examples a node's predictions are: T steps of B."""
        return (training.local_steps or 1) * (self.batch_size or training.batch_size)
