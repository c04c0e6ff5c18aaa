"""The worker as a process: cancelled, killed, hanging, in turns, and never left behind."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from covey.errors import WorkerDied, WorkerError
from covey.worker.client.client import Worker
from covey.worker.client.supervisor import WorkerSupervisor
from covey.worker.jobs.operations import HELLO, TRAIN, Operation
from covey.worker.jobs.runs import HelloJob, HelloResult
from covey.worker.jobs.training import TrainProgress
from tests.integration.worker.runs import Run, spec_of

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]


def eventually(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


async def test_a_cancelled_training_stops_and_the_worker_goes_on(worker: Worker, tmp_path: Path) -> None:
    endless = spec_of("digits", training={"local_steps": 10**6})
    run = Run(worker, tmp_path, endless)
    await run.initial()
    running = asyncio.Event()
    first = asyncio.create_task(worker.do(TRAIN, run.job(0), lambda p: running.set()))
    queued = asyncio.create_task(worker.do(TRAIN, run.job(1)))
    await running.wait()
    queued.cancel()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(asyncio.CancelledError):
        await queued
    assert (await worker.do(HELLO, HelloJob())).device == "cpu"


async def test_cancelling_all_tells_the_callers(worker: Worker, tmp_path: Path) -> None:
    run = Run(worker, tmp_path, spec_of("digits", training={"local_steps": 10**6}))
    await run.initial()
    seen: list[TrainProgress] = []

    def progress(now: TrainProgress) -> None:
        seen.append(now)
        worker.cancel()

    with pytest.raises(WorkerError, match="cancelled"):
        await worker.do(TRAIN, run.job(0), progress)
    assert seen[0].steps == 10**6
    assert 0 < seen[0].step < 10**6
    assert seen[0].loss > 0


async def test_a_listener_that_fails_harms_nobody(worker: Worker, tmp_path: Path) -> None:
    run = Run(worker, tmp_path, spec_of("digits", training={"local_steps": 10**6}))
    await run.initial()

    def progress(_: TrainProgress) -> None:
        worker.cancel()
        raise ValueError("the listener's own")

    with pytest.raises(WorkerError, match="cancelled"):
        await worker.do(TRAIN, run.job(0), progress)
    assert (await worker.do(HELLO, HelloJob())).device == "cpu"


async def test_an_unknown_operation_is_an_answer(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="hello"):
        await worker.do(Operation("sing", HelloJob, HelloResult, ""), HelloJob())
    with pytest.raises(WorkerError, match="spec_json"):
        await worker.do(Operation("describe", HelloJob, HelloResult, ""), HelloJob())


async def test_a_killed_worker_is_noticed_and_replaced(tmp_path: Path) -> None:
    worker = await Worker.start(tmp_path)
    run = Run(worker, tmp_path, spec_of("digits", training={"local_steps": 10**6}))
    await run.initial()

    def kill(_: TrainProgress) -> None:
        os.kill(worker.pid, signal.SIGKILL)

    with pytest.raises(WorkerDied, match="signal 9"):
        await worker.do(TRAIN, run.job(0), kill)
    assert not worker.alive
    assert await worker.wait() == -signal.SIGKILL
    with pytest.raises(WorkerDied):
        await worker.do(HELLO, HelloJob())
    await worker.stop()
    supervisor = WorkerSupervisor(tmp_path, device="cpu", log_format="console")
    try:
        os.kill((await supervisor.start()).pid, signal.SIGKILL)
        assert (await supervisor.do(HELLO, HelloJob())).device == "cpu"
    finally:
        await supervisor.stop()


async def test_the_fault_point_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVEY_FAULTS", "training-step:3")
    worker = await Worker.start(tmp_path)
    try:
        run = Run(worker, tmp_path, spec_of("digits"))
        await run.initial()
        with pytest.raises(WorkerDied):
            await run.train(0)
    finally:
        await worker.stop()


DAEMON = """
import asyncio, sys
from pathlib import Path
from covey.worker.client.client import Worker
from covey.worker.jobs.operations import INITIAL, TRAIN
from covey.worker.jobs.runs import InitialJob
from covey.worker.jobs.training import TrainJob

async def main(folder, spec):
    worker = await Worker.start(folder)
    made = await worker.do(INITIAL, InitialJob("run", spec, folder / "base"))
    job = TrainJob("run", spec, made.layout, 1, 0, 1, folder / "base", {"model": folder / "model"})
    await worker.do(TRAIN, job, lambda now: print(worker.pid, flush=True))

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


async def test_the_worker_ends_with_its_daemon_while_it_trains(tmp_path: Path) -> None:
    spec = spec_of("digits", training={"local_steps": 10**6})
    command = [sys.executable, "-c", DAEMON, str(tmp_path), spec]
    daemon = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=ROOT)
    assert daemon.stdout is not None
    child = psutil.Process(int(await daemon.stdout.readline()))
    daemon.kill()
    await daemon.communicate()
    child.wait(timeout=10)
    assert not child.is_running()


def is_stopped(status: Path) -> bool:
    return "T (stopped)" in status.read_text()


async def test_a_worker_that_hangs_is_killed(tasks_path: None, tmp_path: Path) -> None:
    worker = await Worker.start(tmp_path)
    await worker.do(HELLO, HelloJob())
    os.kill(worker.pid, signal.SIGSTOP)
    threads = Path(f"/proc/{worker.pid}/task").glob("*/status")
    for status in list(threads):
        await asyncio.to_thread(eventually, functools.partial(is_stopped, status))
    await worker.stop(grace_s=0.05)
    assert await worker.wait() == -signal.SIGKILL
    assert not psutil.pid_exists(worker.pid)
    await worker.stop()
    with pytest.raises(WorkerDied, match="stopped"):
        await worker.do(HELLO, HelloJob())


async def test_two_workers_of_one_folder_take_turns(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = await Worker.start(tmp_path)
    await first.do(HELLO, HelloJob())
    second = await Worker.start(tmp_path, log_file=log)
    try:
        hello = asyncio.create_task(second.do(HELLO, HelloJob()))
        await asyncio.to_thread(eventually, lambda: "waiting for another worker" in log.read_text())
        assert not hello.done()
        await first.stop()
        assert (await hello).device == "cpu"
    finally:
        await first.stop()
        await second.stop()


async def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    worker = await Worker.start(tmp_path, device="cuda", log_file=tmp_path / "log")
    with pytest.raises(WorkerError, match=r"cannot compute on 'cuda'.* sees no CUDA device"):
        await worker.do(HELLO, HelloJob())
    assert await worker.wait() == 1
    await worker.stop()
