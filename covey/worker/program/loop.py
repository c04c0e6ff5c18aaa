"""The child's loop: one operation at a time; errors are answers, never the end of the program."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import structlog
import torch

from covey.errors import CoveyError, TaskError, WorkerError
from covey.learning.memory import is_out_of_memory, out_of_memory
from covey.plugins import by_path
from covey.storage.files.spool import obstruction
from covey.user_code.place import error_text, place_of
from covey.worker.jobs.operations import OPERATIONS, Operation
from covey.worker.jobs.serialization import from_json, to_json
from covey.worker.program.host import Host
from covey.worker.program.pipe import Cancelled, Channel, Request
from covey.worker.program.process_settings import KEPT

log = structlog.get_logger(room="worker")
Function = Callable[[Any, Host], object]


def function_of(operation: Operation[Any, Any, Any]) -> Function:
    """Import what does an operation."""
    module, _, name = operation.function.partition(":")
    function: Function = getattr(importlib.import_module(module), name)
    return function


KNOWN = {operation.name: (operation, function_of(operation)) for operation in OPERATIONS}
"""Imported with this module, so that a worker that has started has all that it needs."""


class Program:
    """What the worker is: a device, the runs that it holds warm, and its operations."""

    def __init__(
        self, channel: Channel, *, device: str, threads: int, log_name: str = "its log", confinement: str = ""
    ) -> None:
        torch.set_num_threads(threads)
        self._channel = channel
        self._host = Host(
            _device(device),
            channel.check_cancelled,
            lambda progress: channel.progress(to_json(progress)),
            log_name=log_name,
            confinement=confinement,
        )

    def run(self) -> None:
        """Answer requests until the pipe closes (which ends the process)."""
        while True:
            self._answer(self._channel.next())

    def _answer(self, request: Request) -> None:
        try:
            self._channel.check_cancelled()
            self._channel.answer(to_json(self._done(request)))
        except Cancelled:
            log.info("cancelled", op=request.op)
            self._channel.fail(WorkerError("cancelled"))
        except CoveyError as error:
            # Whoever asked logs the refusal itself; only here is where the task's code failed.
            say = log.debug if _cause(error) is None else log.warning
            say("failed", op=request.op, code=error.code, error=str(error), exc_info=_cause(error))
            cause = _cause(error)
            self._channel.fail(error if cause is None else TaskError(self._host.with_log(str(error))), cause)
        except SystemExit as error:
            self._channel.fail(TaskError(f"{request.op}: the task's code called sys.exit({error.code!r})"), error)
        except Exception as error:
            if isinstance(error, OSError) and (obstacle := obstruction(error)) is not None:
                self._channel.fail(obstacle)
                return
            log.exception("failed", op=request.op)
            if is_out_of_memory(error):
                self._channel.fail(out_of_memory(request.op, error, place_of(error)), error)
                return
            self._channel.fail(WorkerError(self._host.with_log(f"{request.op}: {error_text(error)}")), error)

    def _done(self, request: Request) -> object:
        if request.op not in KNOWN:
            raise WorkerError(f"no operation {request.op!r}; there are: {', '.join(KNOWN)}")
        operation, function = KNOWN[request.op]
        job = from_json(operation.job, request.args)
        try:
            with by_path(getattr(job, "allow_path", False)):
                return function(job, self._host)
        finally:
            KEPT.put_back()


def _cause(error: CoveyError) -> BaseException | None:
    # The place in the user's code, for the operator of this machine; the message alone goes further.
    return error.__cause__ if isinstance(error, TaskError) else None


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise WorkerError(
            f"the worker cannot compute on {name!r}: torch {torch.__version__} sees no CUDA device here; "
            "start with --device cpu, or install a driver and a torch with CUDA"
        )
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise WorkerError(
            f"the worker cannot compute on {name!r}: {str(error).splitlines()[0]}; choose cpu, cuda, cuda:N or auto"
        ) from error
    return device
