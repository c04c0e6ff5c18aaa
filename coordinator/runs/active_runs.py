"""The runs that this coordinator takes care of now, by their ids."""

from __future__ import annotations

from typing import Any

from covey.artifact import Artifact
from covey.coordinator.runs.active_run import ActiveRun
from covey.coordinator.runs.facts import RunFacts
from covey.machines.places import Places, Room
from covey.machines.protocol import NodeJoined, NodeLost, NodeRemoved, PlaceChanged


class ActiveRuns:
    """Who asks for a run, or tells all runs something, does it here."""

    def __init__(self) -> None:
        self.active: dict[str, ActiveRun] = {}
        """By run id, in the order in which they were submitted."""
        self.ended: RunFacts | None = None
        """What is shown of the last run that ended."""
        self.places = Places()
        """Which of them works with which node."""
        self._aside: set[str] = set()
        """Those that were told that others have their places."""

    def of(self, run: str) -> ActiveRun | None:
        """A run by its id, if it is active."""
        return self.active.get(run)

    def add(self, run: ActiveRun) -> None:
        """A run was taken up."""
        self.active[run.run.run] = run
        in_order = sorted(self.active.values(), key=lambda each: (each.run.submitted_at, each.run.run))
        self.active = {each.run.run: each for each in in_order}

    def remove(self, run: ActiveRun) -> None:
        """A run has ended, or is taken care of no more."""
        self.active.pop(run.run.run, None)
        self.ended = run.facts

    def post_all(self, event: Any) -> None:
        """Tell the machines of all active runs something."""
        for run in self.active.values():
            run.post(event)

    def joined(self, node: str, room: Room, now: float) -> None:
        """A node is connected, with room for some runs: these are told (`now` is the machines' time)."""
        for run in self.places.joined(node, room):
            self.active[run].post(NodeLost(node, now))
        self.tell_places(now)
        self._post_of(node, NodeJoined(node, now))

    def lost(self, node: str, now: float) -> None:
        """A node's connection ended."""
        self.places.left(node)
        self._post_of(node, NodeLost(node, now))

    def exclude(self, run: ActiveRun, node: str, now: float) -> None:
        """A node is to work for one of them no more."""
        self.places.exclude(run.run.run, node)
        run.post(NodeRemoved(node, now))

    def shut_out(self, node: str, now: float) -> None:
        """A node is to work for none of them any more."""
        self.places.gone(node)
        self.post_all(NodeRemoved(node, now))

    def settle(self, now: float, *, left_over: bool = False) -> None:
        """Give places that came free to runs that lack them, and tell these; `left_over`: none can begin instead."""
        for run, node in self.places.settle(left_over=left_over):
            if (active := self.active.get(run)) is not None:
                active.post(NodeJoined(node, now))
        self.tell_places(now)

    def tell_places(self, now: float) -> None:
        """Tell runs whose places others have now, and those that have theirs again."""
        for run in self._aside ^ self.places.aside:
            if (active := self.active.get(run)) is not None:
                active.driver.post(PlaceChanged(run not in self.places.aside, now))  # no sign of life of the run
        self._aside = set(self.places.aside)

    def _post_of(self, node: str, event: NodeJoined | NodeLost) -> None:
        for run, active in self.active.items():
            if self.places.admits(run, node):
                active.post(event)

    def served(self, node: str, digest: str) -> tuple[ActiveRun, Artifact] | None:
        """The file of this digest, if the node may download it now, and the run for which."""
        for run in self.active.values():
            artifact = run.served(node, digest) if self.places.admits(run.run.run, node) else None
            if artifact is not None:
                return run, artifact
        return None

    def facts(self) -> list[RunFacts]:
        """What is shown of the active runs; for any thread."""
        return [run.facts for run in list(self.active.values())]

    @property
    def are_idle(self) -> bool:
        """Whether no round is open in any of them."""
        return all(run.is_idle for run in self.active.values())
