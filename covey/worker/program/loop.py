"""The child's loop: one operation at a time; errors are answers, never the end of the program."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import structlog
import torch

from covey.errors import CoveyError, TaskError, WorkerError
from covey.plugins import by_path
from covey.worker.jobs.operations import OPERATIONS, Operation
from covey.worker.jobs.serialization import from_json, to_json
from covey.worker.program.host import Host
from covey.worker.program.pipe import Cancelled, Channel, Request

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

    def __init__(self, channel: Channel, *, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._channel = channel
        self._host = Host(
            _device(device), channel.check_cancelled, lambda progress: channel.progress(to_json(progress))
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
            log.warning("failed", op=request.op, code=error.code, error=str(error), exc_info=_cause(error))
            self._channel.fail(error)
        except SystemExit as error:
            self._channel.fail(TaskError(f"{request.op}: the task's code called sys.exit({error.code!r})"))
        except Exception as error:
            log.exception("failed", op=request.op)
            self._channel.fail(WorkerError(f"{request.op}: {type(error).__name__}: {error}"))

    def _done(self, request: Request) -> object:
        if request.op not in KNOWN:
            raise WorkerError(f"no operation {request.op!r}; there are: {', '.join(KNOWN)}")
        operation, function = KNOWN[request.op]
        job = from_json(operation.job, request.args)
        with by_path(getattr(job, "allow_path", False)):
            return function(job, self._host)


def _cause(error: CoveyError) -> BaseException | None:
    # The place in the user's code, for the operator of this machine; the message alone goes further.
    return error.__cause__ if isinstance(error, TaskError) else None


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit(f"the worker cannot compute on {name!r}: torch {torch.__version__} sees no CUDA device here")
    return torch.device(name)
