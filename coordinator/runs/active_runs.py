"""The runs that this coordinator takes care of now, by their ids."""

from __future__ import annotations

from typing import Any

from covey.artifact import Artifact
from covey.coordinator.runs.active_run import ActiveRun
from covey.coordinator.runs.facts import RunFacts


class ActiveRuns:
    """Who asks for a run, or tells all runs something, does it here."""

    def __init__(self) -> None:
        self.active: dict[str, ActiveRun] = {}
        """By run id, in the order in which they were submitted."""
        self.ended: RunFacts | None = None
        """What is shown of the last run that ended."""

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

    def served(self, node: str, digest: str) -> tuple[ActiveRun, Artifact] | None:
        """The file of this digest, if the node may download it now, and the run for which."""
        for run in self.active.values():
            artifact = run.served(node, digest)
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
