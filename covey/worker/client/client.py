"""The daemon's side of the worker: starts the child program, gives it jobs, sees to its end. Free of torch.

Jobs are done one at a time, in the order in which they were given. Cancelling the asyncio task that waits
for a job stops the job at its next step and leaves the worker usable; files of a cancelled job may still be
written until the next job begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import structlog

from covey.errors import CoveyError, WorkerDied, WorkerError, by_code
from covey.worker.jobs import decisions as dm
from covey.worker.jobs import messages as m

log = structlog.get_logger(room="worker")
T = TypeVar("T")
OnProgress = Callable[[dict[str, Any]], None]
MAX_LINE_BYTES = 1 << 28
"""A line holds at most a layout of very many tensors, or the chunk table of a huge model."""
STANDARD_ERROR = 2
LAST_WORDS_S = 0.5
"""How long after the child's end its pipe is still read."""


class Worker:
    """One living child program with the tensors. Make it with `start`."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process, self._reader, self._writer = process, reader, writer
        self._calls: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._progress: dict[int, OnProgress] = {}
        self._last_id = 0
        self._stopping = False
        self._listener = asyncio.create_task(self._listen())
        self._watcher = asyncio.create_task(self._watch())

    @classmethod
    async def start(
        cls,
        data_dir: Path,
        *,
        device: str = "cpu",
        threads: int = 1,
        log_format: str = "console",
        log_file: Path | None = None,
    ) -> Worker:
        """Spawn a worker; returns at once, while the child still imports torch (jobs wait for it).

        Args:
            data_dir: The child's place for private files; made if missing.
            device: `cpu`, `cuda`, `cuda:N`, or `auto` (CUDA where there is any).
            threads: Compute threads; part of what makes results repeatable.
            log_format: Of the child's log lines: `console` or `json`.
            log_file: Where the child's output goes (appended); default: this process's standard error.
        """
        data_dir.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.callback(theirs.close)
            output = STANDARD_ERROR if log_file is None else stack.enter_context(log_file.open("ab")).fileno()
            command = [sys.executable, "-m", "covey.worker", "--fd", str(theirs.fileno()), "--device", device]
            command += ["--threads", str(threads), "--log-format", log_format, "--data-dir", str(data_dir)]
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    env=_environment(threads),
                )
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_LINE_BYTES)
        return cls(process, reader, writer)

    # -- life

    @property
    def alive(self) -> bool:
        """Whether it can still be given a job."""
        return self._process.returncode is None and not self._listener.done() and not self._stopping

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait for the child's end; its exit code, negative for a signal."""
        return await self._process.wait()

    async def stop(self, grace_s: float = 2.0) -> None:
        """End and reap the child: close its pipe, then SIGTERM, then SIGKILL, `grace_s` apart."""
        self._stopping = True
        self._writer.close()
        try:
            for end in (self._process.terminate, self._process.kill):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), grace_s)
                    break
                with contextlib.suppress(ProcessLookupError):
                    end()
            await self._process.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            raise
        await asyncio.gather(self._listener, self._watcher)
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    # -- calls

    async def call(self, op: str, on_progress: OnProgress | None = None, **args: Any) -> dict[str, Any]:
        """Have one operation done; the daemons use the typed methods below.

        Raises:
            WorkerDied: The child ended before it answered.
            CoveyError: What the child reported, as the class of its code (TaskError: the user's code failed).
        """
        if not self.alive:
            raise WorkerDied(await self._epitaph())
        self._last_id += 1
        number = self._last_id
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        if on_progress is not None:
            self._progress[number] = on_progress
        try:
            self._send({"id": number, "op": op, "args": args})
            return await answer
        except asyncio.CancelledError:
            self._send({"cancel": number})
            raise
        finally:
            self._calls.pop(number, None)
            self._progress.pop(number, None)

    def cancel(self) -> None:
        """Stop every job given so far, at its next step; their callers get a WorkerError."""
        for number in self._calls:
            self._send({"cancel": number})

    def _send(self, message: Mapping[str, Any]) -> None:
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def _listen(self) -> None:
        try:
            while line := await self._reader.readline():
                self._take(json.loads(line))
        except (OSError, ValueError) as error:
            log.warning("the worker's pipe broke", error=str(error))
        finally:
            self._writer.close()
        epitaph = await self._epitaph()
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(WorkerDied(epitaph))

    async def _watch(self) -> None:
        # Processes forked by the user's code may hold the pipe open after the child's death.
        await self._process.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._listener), LAST_WORDS_S)
        self._writer.transport.abort()

    def _take(self, message: dict[str, Any]) -> None:
        number = message["id"]
        if "progress" in message:
            self._tell(self._progress.get(number), message["progress"])
            return
        answer = self._calls.get(number)
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(_error(message["error"]))
        else:
            answer.set_result(message["result"])

    def _tell(self, listener: OnProgress | None, progress: dict[str, Any]) -> None:
        if listener is None:
            return
        try:
            listener(progress)
        except Exception:
            log.exception("a listener to progress failed")

    async def _epitaph(self) -> str:
        if self._stopping:
            return "the worker was stopped"
        code = await self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"the worker (process {self.pid}) {how} before it answered; its output is in the log"

    # -- the operations

    async def _typed(self, op: str, job: object, kind: type[T], on_progress: OnProgress | None = None) -> T:
        return m.from_json(kind, await self.call(op, on_progress, **m.to_json(job)))

    async def hello(self) -> m.HelloResult:
        """Wait until the child is ready; what it computes on."""
        return m.from_json(m.HelloResult, await self.call("hello"))

    async def describe(self, spec_json: str, *, allow_path: bool = False) -> m.Description:
        """Validate everything that a specification names, with the plug-ins installed here.

        Raises:
            SpecError: An option is wrong, or a combination is impossible; the message names key and choices.
            PluginError: A name is not installed.
        """
        return await self._typed("describe", m.DescribeJob(spec_json, allow_path), m.Description)

    async def initial(self, run: str, spec_json: str, out: Path, *, allow_path: bool = False) -> m.InitialResult:
        """Make a run's first model from its seed, as a synced file at `out`.

        Raises:
            PluginError: The task is not installed here.
            TaskError: Its code failed.
        """
        return await self._typed("initial", m.InitialJob(run, spec_json, out, allow_path), m.InitialResult)

    async def train(
        self, job: m.TrainJob, on_progress: Callable[[m.TrainProgress], None] | None = None
    ) -> m.TrainResult:
        """Train locally; the update's parts are synced files when this returns.

        Raises:
            LayoutError: The task's own model is not the run's, or the base file is not of this layout.
            TaskError: The task's code failed, or training diverged.
            PluginError: Task or codec are not installed or not allowed here.
        """
        relay = None if on_progress is None else lambda fields: on_progress(m.TrainProgress(**fields))
        return await self._typed("train", job, m.TrainResult, relay)

    async def evaluate(self, job: m.EvaluateJob) -> m.Metrics:
        """Evaluate a model file; empty where there is no such data.

        Raises:
            LayoutError: The file is not one of the task's model.
            TaskError: The task's code failed.
        """
        metrics: dict[str, list[float]] = (await self.call("evaluate", **m.to_json(job)))["metrics"]
        return {name: (total, count) for name, (total, count) in metrics.items()}

    async def aggregate(self, job: m.AggregateJob) -> m.AggregateResult:
        """Make the next version of a run from the updates of a round, as synced files.

        Raises:
            LayoutError: The base or a state file is not of the layout.
            SpecError: The rule refuses this round (its message says why).
        """
        return await self._typed("aggregate", job, m.AggregateResult)

    async def apply(self, job: m.ApplyJob) -> m.ApplyResult:
        """Make a version from the one before it and the committed change, as a synced file.

        Raises:
            LayoutError: A file is not of the run's layout.
            LimitExceeded: The change is too long.
        """
        return await self._typed("apply", job, m.ApplyResult)

    async def decide(self, job: dm.DecideJob) -> dm.DecideResult:
        """Decide on one update of an asynchronous run; the next version, if there is one, as synced files.

        Raises:
            LayoutError: A version or a state file is not of the layout.
            RunFailed: The policy cannot be applied (its message says why).
        """
        return await self._typed("decide", job, dm.DecideResult)

    async def check(self, job: m.CheckJob) -> m.CheckResult:
        """Train one local batch.

        Raises:
            PluginError: The task is not installed or not allowed here.
            TaskError: Its code failed.
        """
        return await self._typed("check", job, m.CheckResult)

    async def forget(self, run: str) -> None:
        """Let go of what is held warm for a run."""
        await self.call("forget", run=run)


MALLOC = {
    # Memory that one thread gives back can be used by all.
    "MALLOC_ARENA_MAX": "1",
    # Memory that one training step gives back is kept for the next, up to so much: giving it to the system and
    # taking it again costs a convolutional network a fifth of its speed. Setting one threshold stops glibc
    # from adapting the other, so that one is set to what it would come to.
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}


def _environment(threads: int) -> dict[str, str]:
    return {**MALLOC, **os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}


def _error(fields: Mapping[str, str]) -> CoveyError:
    kind = by_code().get(fields["code"], WorkerError)
    return kind(fields["message"])
