"""A site's own filter on what leaves it: it sees each part of an update, may change it, or refuse.

Its node's operator orders it ([[policy.outgoing]] in node.toml). It runs after the method, and before worker momentum,
error feedback and the codec: what those add is made of what filters let pass.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from covey.plugins import Kind, Pluggable


@dataclass(frozen=True)
class Leaving:
    """What is about to leave.

    Attributes:
        run: The run's name.
        round: Counts from 1; in an asynchronous run the assignment's number.
        part: As the run's method declares it; `model`: the trained parameters, or what they were made of.
        payload: What part `model` is: `parameters`, `delta` (their change) or `gradient`.
        examples: Of the node's part of the data.
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


FILTERS = Kind("outgoing-filter", "covey.outgoing", OutgoingFilter, "policy.outgoing")
