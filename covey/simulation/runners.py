"""The coordinator's runners without deadlines: virtual nodes wait for this machine's processors, not for a network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from covey.coordinator.environment import Environment
from covey.coordinator.modes.asynchronous.mode import AsyncRunner
from covey.coordinator.modes.rounds.mode import RunRunner
from covey.coordinator.runs.active_run import RunBase
from covey.storage.record.contract import RunRecord

FOREVER_S = 1e9
"""Longer than any simulation, and still a number that clocks can add."""


class PatientRounds(RunRunner):
    """A run of mode `rounds` that waits for every invited node."""

    waiting = False
    """Whether it waits for an event."""

    async def _begin(self) -> None:
        await super()._begin()
        if self.machine is not None:
            policy = self.machine.policy
            self.machine.policy = replace(policy, deadline_s=FOREVER_S, hard_deadline_s=FOREVER_S)

    async def _next_event(self) -> Any:
        self.waiting = True
        try:
            return await super()._next_event()
        finally:
            self.waiting = False


class PatientAsync(AsyncRunner):
    """A run of mode `async` that waits for every assignment."""

    waiting = False
    """Whether it waits for an event."""

    async def _begin(self) -> None:
        await super()._begin()
        if self.machine is not None:
            self.machine.policy = replace(self.machine.policy, deadline_s=FOREVER_S)

    async def _next_event(self) -> Any:
        self.waiting = True
        try:
            return await super()._next_event()
        finally:
            self.waiting = False


Patient = PatientRounds | PatientAsync


def runner_of(env: Environment, run: RunRecord) -> Patient:
    """What cares for a simulated run, by its mode."""
    return PatientAsync(env, run) if run.mode == "async" else PatientRounds(env, run)


def is_stalled(runner: RunBase[Any] | None, env: Environment) -> bool:
    """Whether a run waits for nodes, and nothing is being done that could become an event."""
    if not isinstance(runner, PatientRounds | PatientAsync) or runner.machine is None or not runner.waiting:
        return False
    if runner._tasks or env._background or not runner._events.empty():
        return False
    wake_at = runner.machine.wake_at
    return wake_at is None or wake_at > env.now() + FOREVER_S / 10
