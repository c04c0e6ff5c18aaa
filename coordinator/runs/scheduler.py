"""The queue of runs: one at a time, those in progress first, then the oldest submission."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from covey.coordinator.environment import Environment
from covey.coordinator.modes.asynchronous.mode import AsyncRunner
from covey.coordinator.modes.rounds.mode import RunRunner
from covey.coordinator.runs.active_run import RunBase
from covey.storage.record.contract import RunRecord

log = structlog.get_logger(room="coordinator")


async def next_run(env: Environment) -> RunRecord | None:
    """The run to care for now, or None."""
    records = await env.store.persist(env.store.store.runs, states=("running", "queued"), limit=1_000_000)
    if not records or (env.draining and records):
        return None
    return min(records, key=lambda run: (run.state != "running", run.submitted_at, run.run))


def runner_of(env: Environment, run: RunRecord) -> RunBase[Any]:
    """What cares for a run, by its mode."""
    return AsyncRunner(env, run) if run.mode == "async" else RunRunner(env, run)


async def serve_runs(env: Environment) -> None:
    """Care for one run after the other until cancelled."""
    while True:
        env.queue_changed.clear()
        run = await next_run(env)
        if run is None:
            await env.queue_changed.wait()
            continue
        log.info("run taken", run=run.run, name=run.name, state=run.state)
        env.current = runner_of(env, run)
        try:
            await env.current.execute()
        finally:
            env.metrics.ended, env.current = env.current.facts, None
            env.changes.notify()
        await asyncio.sleep(0)
