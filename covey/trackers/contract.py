"""What a tracker is: it is told the points of a run's curves in order, and remembers how far it was told."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from covey.errors import PluginError, SpecError
from covey.plugins import Kind, Pluggable


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run before its points.

    Attributes:
        run: Its id.
        name: As its specification has it; it may hold any characters.
        mode: `rounds`, `async` or `gossip`.
        submitted_at: When, in Unix seconds.
        parent: The run and version that it began with, RUN@VERSION; empty: there is none.
        spec: Its specification: keys with dots to numbers, texts, lists or None.
    """

    run: str
    name: str
    mode: str = "rounds"
    submitted_at: float = 0.0
    parent: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)

    def about(self) -> dict[str, Any]:
        """Its identity as one flat mapping, without the specification."""
        return {name: getattr(self, name) for name in ("run", "name", "mode", "submitted_at", "parent")}


class Tracker(Pluggable):
    """Writes a run's curves somewhere. One object is for one run and one thread: `open` first, `close` last.

    A tracker whose library is not installed says so in `open`, with `needs`; it is imported there and not before.

    Class attributes:
        takes_models: Whether it takes the run's model; so for one that has `model`.
    """

    takes_models: ClassVar[bool] = False
    declares: ClassVar[Mapping[str, str]] = {"model": "takes_models"}

    @abstractmethod
    def open(self, where: str, run: TrackedRun) -> str:
        """Begin, or go on with what an earlier process left.

        Args:
            where: The target as the user named it, behind the tracker's name: a folder, or an address.
            run: The run.

        Returns:
            The text that was last given to `save`; empty: all points are to be told from the first one on. What was
            told after that `save` must be gone, or must not count twice when it is told again.

        Raises:
            CoveyError: It cannot be written there; the message says what to do.
        """

    @abstractmethod
    def point(self, name: str, step: int, value: float, at: float) -> None:
        """Take one point.

        Args:
            name: Of the curve: at most 200 printable characters, words with slashes between them.
            step: The round, version or step. Within a name it only falls where a gossip node came back.
            value: Finite.
            at: When it was, in Unix seconds.
        """

    @abstractmethod
    def save(self, cursor: str) -> None:
        """Keep what was told, and with it this text for the next `open`: after a kill both are there, or neither."""

    def model(self, file: Path) -> None:
        """Take the run's model, a safetensors file that is deleted afterwards; only of trackers that have this."""
        raise NotImplementedError

    @abstractmethod
    def close(self, state: str) -> None:
        """End, also after an error.

        Args:
            state: The run's, where it has ended: `completed`, `failed` or `stopped`; empty: it may go on.
        """


TRACKERS = Kind("tracker", "covey.trackers", Tracker, "tracker")


def tracker_at(target: str, options: Mapping[str, Any] | None = None) -> tuple[Tracker, str]:
    """The tracker that a target `NAME:WHERE` names, and the place.

    Raises:
        SpecError: It is no such text, or an option is wrong.
        PluginError: No tracker of this name is installed.
    """
    name, colon, where = target.partition(":")
    if not (name and colon and where):
        known = ", ".join(plugin.name for plugin in TRACKERS.installed())
        raise SpecError(f"{target!r} is not a tracker and a place; write NAME:WHERE, as csv:curves; trackers: {known}")
    return TRACKERS.make(name, options), where


def needs(package: str, extra: str) -> PluginError:
    """What is raised where a tracker's library is not installed."""
    return PluginError(f"{package} is not installed here: pip install 'covey[{extra}]'")
