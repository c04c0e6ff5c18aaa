"""A site's own filter on what leaves it: it sees each part of an update and all metrics, may change them, or refuse.

Its node's operator orders it ([[policy.outgoing]] in node.toml). It runs after the method, and before worker momentum,
error feedback and the codec: what those add is made of what filters let pass. In a gossip run it sees what a step of
local training has changed, before that becomes part of the node's model: whatever is sent is made of steps that passed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from covey.metrics import Totals
from covey.plugins import Kind, Pluggable

TRAINING, EVALUATION = "training", "evaluation"
"""What metrics are of: in the place of a part's name."""


@dataclass(frozen=True)
class Leaving:
    """What is about to leave.

    Attributes:
        run: The run's name.
        round: Counts from 1; in an asynchronous run the assignment's number, in a gossip run the step. Of an evaluation
            that is asked for by itself it is 0.
        part: As the run's method declares it; `model`: the trained parameters, or what they were made of. Of metrics it
            is `training` or `evaluation`.
        payload: What part `model` is: `parameters`, `delta` (their change) or `gradient`.
        examples: Of the node's part of the data; beside metrics of an evaluation, of its evaluation data.
    """

    run: str
    round: int
    part: str
    payload: str
    examples: int


class OutgoingFilter(Pluggable):
    """One filter. It is made anew for each update.

    Class attributes:
        version: What is put on record beside its name; empty: the version of its package.
    """

    version: ClassVar[str] = ""

    @abstractmethod
    def tensors(self, tensors: Mapping[str, Tensor], leaving: Leaving) -> Mapping[str, Tensor]:
        """What leaves in their place: the same names, shapes and dtypes; values must be finite.

        Args:
            tensors: By name, on the CPU, to be written into. `model` is float32, buffers have their own dtypes.
            leaving: What it is.

        Raises:
            PolicyError: It must not leave; the message says why, and goes to the coordinator.
        """

    def content(self, content: bytes, leaving: Leaving) -> bytes:
        """The same of a part that is no tensors, such as counts of labels; it may not become longer than it may be."""
        return content

    def metrics(self, metrics: Mapping[str, Totals], leaving: Leaving) -> Mapping[str, Totals]:
        """What leaves in the place of metrics: the same names, or some of them.

        Args:
            metrics: (total, count) by name, as the task counts them: people see the ratio, and the record has both. The
                bins of a curve (`NAME/bin-N`) belong together.
            leaving: What it is.

        Raises:
            PolicyError: As `tensors`: the whole answer does not leave. To leave out metrics alone, return fewer.
        """
        return metrics


FILTERS = Kind("outgoing-filter", "covey.outgoing", OutgoingFilter, "policy.outgoing")
