"""A gossip run has nothing to be replayed at its coordinator: every decision was its nodes'."""

from __future__ import annotations

from covey.coordinator.modes.contract import Replaying, ReplayInputs
from covey.errors import SpecError


def refuse_replay(given: ReplayInputs) -> Replaying:
    """Raises SpecError, with the command that looks at such a run."""
    run = given.run
    raise SpecError(
        f"run {run.run} is of mode {run.mode!r}: no decision of it was made by the coordinator. "
        f"To compare the accounts of its nodes: covey run audit {run.run}"
    )
