"""A simulated run that stops for now after a round, to be taken up again later as a restarted coordinator would."""

from __future__ import annotations

from collections.abc import Callable

from covey.coordinator.environment import Environment
from covey.coordinator.runs.active_run import ActiveRun
from covey.machines.protocol import PauseChanged
from covey.simulation.runners import is_stalled


class Pausing:
    """Sees to it that no round after a certain one is opened.

    Args:
        env: The coordinator's.
        run: The run; None: it is not in progress yet.
        until: The last round; None: the run goes on to its end.
    """

    def __init__(self, env: Environment, run: Callable[[], ActiveRun | None], until: int | None) -> None:
        self._env, self._run, self._until = env, run, until

    @property
    def is_reached(self) -> bool:
        """Whether the round is committed, what it asked for is done, and the run waits for nothing but its going on."""
        run, committed = self._run(), self._committed
        if self._until is None or run is None or committed < self._until or not self._env.operation.paused:
            return False
        return is_stalled(run, self._env.background, self._env.clock())

    async def run(self) -> None:
        """Pause the run while its last round is open: it is committed, and none is opened after it."""
        seen = self._env.changes.count
        while self._until is not None:
            if max(self._committed, self._open) >= self._until:
                self._env.operation.paused = True
                self._env.runs.post_all(PauseChanged(True, self._env.clock()))
                return
            seen = await self._env.changes.after(seen)

    @property
    def _committed(self) -> int:
        return int(getattr(self._machine, "committed", 0))

    @property
    def _open(self) -> int:
        return int(getattr(self._machine, "round", 0))

    @property
    def _machine(self) -> object:
        run = self._run()
        return run.machine if run is not None else None
