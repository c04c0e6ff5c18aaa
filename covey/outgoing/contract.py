"""What a stage of an update's way out is, and how an update passes them all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from covey.vectors import Vector


class LocalState(Protocol):
    """What a node keeps from one update to the next: float32 vectors of the update's length, by name."""

    def before(self, name: str) -> Vector | None:
        """What was kept with the last accepted update; None: nothing yet."""

    def keep(self, name: str, vector: Vector) -> Vector:
        """Keep a vector, which counts once this update is accepted; the same vector, to be read as often as needed.

        Raises:
            TaskError: A value is not finite.
        """


class Stage(ABC):
    """One stage, made anew for each update.

    Class attributes:
        keeps: What it keeps in a `LocalState`, by name.
    """

    keeps: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def leave(self, vector: Vector, state: LocalState) -> Vector:
        """What goes on in the place of a vector, float32 `[d]`.

        Args:
            vector: What the stage before made; the first gets the node's own.
            state: What the node keeps.
        """

    def after(self, decoded: Vector, state: LocalState) -> None:
        """The update is encoded; a stage that has no use for that leaves it out.

        Args:
            decoded: What everybody else will read, float32 `[d]`.
            state: What the node keeps.
        """
        return


def send(
    vector: Vector,
    stages: Sequence[Stage],
    state: LocalState,
    encode: Callable[[Vector], None],
    decoded: Callable[[], Vector],
) -> None:
    """Have a vector pass all stages, encode it, and tell them.

    Args:
        vector: The node's own.
        stages: In order.
        state: What the node keeps.
        encode: Makes the update of what the last stage made.
        decoded: Opens what was encoded; it is only asked where a stage has an `after`.
    """
    for stage in stages:
        vector = stage.leave(vector, state)
    encode(vector)
    for stage in stages:
        if type(stage).after is not Stage.after:
            stage.after(decoded(), state)
