"""The daemon's side of the worker: starts the child program, gives it jobs, sees to its end. Free of torch.

Jobs are done one at a time, in the order in which they were given. Cancelling the asyncio task that waits
for a job stops the job at its next step and leaves the worker usable; files of a cancelled job may still be
written until the next job begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog

from covey.errors import CoveyError, WorkerDied, WorkerError, WorkerStalled, by_code
from covey.user_code.place import place_in
from covey.worker.client.confinement import Confinement
from covey.worker.client.epitaph import epitaph, kills_for_memory
from covey.worker.client.output import OnOutput, Output, unheard
from covey.worker.client.patience import START_S, STOP_S, Patience
from covey.worker.jobs.files import STACKS
from covey.worker.jobs.operations import Operation
from covey.worker.jobs.serialization import from_json, to_json

log = structlog.get_logger(room="worker")
J = TypeVar("J")
R = TypeVar("R")
P = TypeVar("P")
OnProgress = Callable[[dict[str, Any]], object]
MAX_LINE_BYTES = 1 << 28
"""A line holds at most a layout of very many tensors, or the chunk table of a huge model."""
MAX_MESSAGE = 20_000
"""Of an error's text no more is taken: the task's code may have written it."""
LAST_WORDS_S = 0.5
"""How long after the child's end its pipe is still read."""


class Child(Protocol):
    """The worker's process; the part of `asyncio.subprocess.Process` that is needed of it."""

    @property
    def pid(self) -> int:
        """Its id."""

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""

    async def wait(self) -> int:
        """Wait for its end; the exit code."""

    def terminate(self) -> None:
        """SIGTERM."""

    def kill(self) -> None:
        """SIGKILL."""


class StartProgram(Protocol):
    """Starts the worker's program."""

    async def __call__(self, arguments: Sequence[str], pipe: int, output: int, env: Mapping[str, str]) -> Child:
        """With these arguments, this end of the pipe, files for what it prints, and this environment."""


async def _execute(arguments: Sequence[str], pipe: int, output: int, env: Mapping[str, str]) -> Child:
    # -P: what lies in the current folder (a signal.py, a node.py) is no module of ours; the child looks there last.
    command = [sys.executable, "-P", "-m", "covey.worker", "--fd", str(pipe), *arguments]
    return await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=output, stderr=output, pass_fds=(pipe,), start_new_session=True, env=env
    )


start_program: StartProgram = _execute
"""How workers are started; `covey.testing.launch.forks` has a quicker way."""


class Worker:
    """One living child program with the tensors. Make it with `start`."""

    def __init__(
        self,
        process: Child,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        stacks: Path,
        output: Output,
        memory_bytes: int | None = None,
    ) -> None:
        self._process, self._reader, self._writer, self._stacks = process, reader, writer, stacks
        self._output, self._memory_bytes, self._kills_before = output, memory_bytes, kills_for_memory()
        self._calls: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._patience: dict[int, Patience] = {}
        self._leaving: dict[int, asyncio.Task[None]] = {}
        """Of jobs that were given up and have not ended yet."""
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
        log_name: str = "",
        confinement: Confinement | None = None,
        on_output: OnOutput = unheard,
    ) -> Worker:
        """Spawn a worker; returns at once, while the child still imports torch (jobs wait for it).

        Args:
            data_dir: The child's place for private files; made if missing.
            device: `cpu`, `cuda`, `cuda:N`, or `auto` (CUDA where there is any).
            threads: Compute threads; part of what makes results repeatable.
            log_format: Of the child's log lines: `console` or `json`.
            log_file: Where the child's output goes (appended, see `Output`); default: this process's standard error.
            log_name: What people call that, for messages; default: `log_file`.
            confinement: What it cannot read, and what it is given; default: nothing is hidden.
            on_output: Told what it prints, as it comes.
        """
        confinement = confinement or Confinement()
        data_dir.mkdir(parents=True, exist_ok=True)
        confinement.make_folders()
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.callback(theirs.close)
            output = Output(log_file, on_output)
            printed = await output.open()
            stack.callback(os.close, printed)
            arguments = ["--device", device, "--threads", str(threads), "--log-format", log_format]
            arguments += [
                "--data-dir",
                str(data_dir),
                "--log-name",
                log_name or str(log_file or "this program's output"),
            ]
            arguments += confinement.arguments()
            environment = _environment(threads, confinement)
            try:
                process = await start_program(arguments, theirs.fileno(), printed, environment)
            except BaseException:
                ours.close()
                await output.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_LINE_BYTES)
        return cls(process, reader, writer, data_dir / STACKS, output, confinement.memory_bytes)

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
        await asyncio.gather(self._listener, self._watcher, *self._leaving.values(), return_exceptions=True)
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    # -- calls

    async def do(
        self,
        operation: Operation[J, R, P],
        job: J,
        on_progress: Callable[[P], object] | None = None,
        *,
        stall_s: float = math.inf,
    ) -> R:
        """Have one job done.

        Args:
            operation: A row of `covey.worker.jobs.operations`, which says what it raises.
            job: Its job.
            on_progress: Told how far it is, where the operation reports that.
            stall_s: How long it may go without a step.

        Raises:
            WorkerDied: The child ended before it answered.
            WorkerStalled: It made no step for `stall_s`; the child was killed.
            CoveyError: What the child reported, as the class of its code (TaskError: the user's code failed).
        """
        relay, kind = None, operation.progress
        if on_progress is not None and kind is not None:
            relay = lambda fields: on_progress(from_json(kind, fields))  # noqa: E731
        return from_json(operation.result, await self._call(operation.name, to_json(job), relay, stall_s))

    async def _call(
        self, op: str, args: Mapping[str, Any], on_progress: OnProgress | None, stall_s: float
    ) -> dict[str, Any]:
        if not self.alive:
            raise WorkerDied(await self._epitaph())
        self._last_id += 1
        number = self._last_id
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        if on_progress is not None:
            self._progress[number] = on_progress
        patience = self._patience[number] = Patience()
        try:
            self._send({"id": number, "op": op, "args": args})
            return await patience.wait(answer, stall_s)
        except TimeoutError:
            raise await self._end_stalled(op, patience.begun, stall_s) from None
        except asyncio.CancelledError:
            self._give_up(number, op, answer)
            raise
        finally:
            self._progress.pop(number, None)
            if number not in self._leaving:
                self._forget(number)

    def cancel(self) -> None:
        """Stop every job given so far, at its next step; their callers get a WorkerError."""
        for number in self._calls:
            self._send({"cancel": number})

    def _forget(self, number: int) -> None:
        for kept in (self._calls, self._patience, self._leaving):
            kept.pop(number, None)

    def _give_up(self, number: int, op: str, answer: asyncio.Future[dict[str, Any]]) -> None:
        """Cancel a job; if it does not stop at a step, the child ends."""
        self._send({"cancel": number})

        async def see_it_end() -> None:
            try:
                await self._patience[number].wait(answer, STOP_S)
            except TimeoutError:
                log.warning("a job that was given up does not stop: its worker is ended", op=op, seconds=STOP_S)
                self._kill()
            except CoveyError:
                pass
            finally:
                self._forget(number)

        self._leaving[number] = asyncio.create_task(see_it_end())

    async def _end_stalled(self, op: str, begun: bool, stall_s: float) -> WorkerStalled:
        """Kill the child; the error says what it was doing."""
        if not begun:
            self._kill()
            return WorkerStalled(f"the worker did not begin {op!r} within {START_S:g} s; its output is in the log")
        where = await self._where()
        self._kill()
        at = f" (it was at {where})" if where else ""
        log.warning("a job made no step: its worker is ended", op=op, seconds=stall_s, where=where)
        return WorkerStalled(f"{op!r} made no step for {stall_s:g} s{at}; its worker was ended")

    async def _where(self) -> str:
        """Where in the user's code the child is now; empty: not known."""
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGUSR1)
            for _ in range(10):
                await asyncio.sleep(0.05)
                if dump := await asyncio.to_thread(self._stacks.read_text, errors="replace"):
                    return place_in(dump)
        return ""

    def _kill(self) -> None:
        """End the child, and what the user's code has forked, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

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
        await self._output.close(LAST_WORDS_S)

    def _take(self, message: dict[str, Any]) -> None:
        number = message["id"]
        if number in self._patience:
            self._patience[number].heard()
        if "alive" in message:
            return
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
        how = epitaph(code, self._kills_before, self._memory_bytes)
        return f"the worker (process {self.pid}) {how} before it answered; its output is in the log"


MALLOC = {
    # Memory that one thread gives back can be used by all.
    "MALLOC_ARENA_MAX": "1",
    # Memory that one training step gives back is kept for the next, up to so much: giving it to the system and
    # taking it again costs a convolutional network a fifth of its speed. Setting one threshold stops glibc
    # from adapting the other, so that one is set to what it would come to.
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}


def _environment(threads: int, confinement: Confinement) -> dict[str, str]:
    return {**MALLOC, **confinement.of(), "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}


def _error(fields: Mapping[str, str]) -> CoveyError:
    error = by_code().get(fields["code"], WorkerError)(fields["message"][:MAX_MESSAGE])
    if isinstance(error, WorkerError):
        error.traceback = fields.get("traceback", "")[:MAX_MESSAGE]
    return error
