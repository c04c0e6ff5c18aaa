"""Jobs that hang: they end, and say where they were; whoever comes next gets a worker."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from covey.errors import WorkerStalled
from covey.worker.client import client
from covey.worker.client.supervisor import WorkerSupervisor
from covey.worker.jobs.evaluation import EvaluateJob
from covey.worker.jobs.operations import EVALUATE, TRAIN
from covey.worker.jobs.training import TrainProgress
from tests.integration.worker.runs import Run, spec_of

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("forking")]


async def test_a_job_that_hangs_is_ended_and_says_where(tasks_path: None, tmp_path: Path) -> None:
    supervisor = WorkerSupervisor(tmp_path, device="cpu", log_format="console", log_name="the log of node n1")
    try:
        run = Run(supervisor, tmp_path, spec_of("Hanging"))
        await run.initial()
        first = (await supervisor.start()).pid
        job = run.job(0, evaluate=True, node_options={"hangs": "loss"})
        seen: list[TrainProgress] = []
        with pytest.raises(
            WorkerStalled, match=r"'train' made no step for 2 s \(it was at .*worker_tasks.py:\d+, in loss\)"
        ):
            await supervisor.do(TRAIN, replace(job, stall_s=2.0), seen.append)
        assert [(now.step, now.steps) for now in seen] == [(0, 0)]  # the evaluation was over
        hangs = {"hangs": "evaluate"}
        evaluation = EvaluateJob(run.name, run.spec, run.base, "node", node_options=hangs, allow_path=True)
        with pytest.raises(WorkerStalled, match=r"'evaluate' made no step for 2 s \(it was at .*worker_tasks.py"):
            await supervisor.do(EVALUATE, replace(evaluation, stall_s=2.0))
        assert (await supervisor.do(TRAIN, run.job(1, node_options={"hangs": ""}))).steps > 0
        assert (await supervisor.start()).pid != first
    finally:
        await supervisor.stop()


async def test_a_daemon_has_a_limit_of_its_own_for_jobs_that_have_none(tasks_path: None, tmp_path: Path) -> None:
    supervisor = WorkerSupervisor(tmp_path, device="cpu", log_format="console", stall_s=2.0)
    try:
        with pytest.raises(WorkerStalled, match=r"'initial' made no step for 2 s \(it was at .*:\d+, in model\)"):
            await Run(supervisor, tmp_path, spec_of("Endless")).initial()
        assert (await Run(supervisor, tmp_path, spec_of()).initial()).layout
    finally:
        await supervisor.stop()


async def test_a_job_that_was_given_up_and_does_not_stop_costs_its_worker_only(
    tasks_path: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "STOP_S", 0.4)
    supervisor = WorkerSupervisor(tmp_path, device="cpu", log_format="console")
    try:
        run = Run(supervisor, tmp_path, spec_of("Deaf"))
        await run.initial()
        begun = asyncio.Event()
        deaf = asyncio.create_task(supervisor.do(TRAIN, run.job(0), lambda _: begun.set()))
        await begun.wait()
        deaf.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deaf
        other = Run(supervisor, tmp_path, spec_of())
        await other.initial()
        assert (await other.train(1)).steps > 0
    finally:
        await supervisor.stop()
