"""The child's loop: one operation at a time; errors are answers, never the end of the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
import torch

from covey.errors import CoveyError, TaskError, WorkerError
from covey.worker.execute.aggregation_op import aggregate
from covey.worker.execute.coordinator_ops import describe, initial
from covey.worker.execute.decision_op import decide
from covey.worker.execute.node_ops import apply, check, device_name, evaluate, train
from covey.worker.jobs import decisions as dm
from covey.worker.jobs import messages as m
from covey.worker.program.context import Contexts
from covey.worker.program.pipe import Cancelled, Channel, Request

log = structlog.get_logger(room="worker")
Operation = Callable[[dict[str, Any]], Any]


class Program:
    """What the worker is: a device, the runs that it holds warm, and its operations."""

    def __init__(self, channel: Channel, *, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._channel = channel
        self._contexts = contexts = Contexts(_device(device))
        self._operations: dict[str, Operation] = {
            "hello": lambda args: m.HelloResult(device_name(contexts.device)),
            "describe": lambda args: describe(contexts, m.from_json(m.DescribeJob, args)),
            "initial": lambda args: initial(contexts, m.from_json(m.InitialJob, args)),
            "aggregate": lambda args: aggregate(contexts, m.from_json(m.AggregateJob, args), channel),
            "decide": lambda args: decide(m.from_json(dm.DecideJob, args), channel),
            "train": lambda args: train(contexts, m.from_json(m.TrainJob, args), channel),
            "evaluate": lambda args: {"metrics": evaluate(contexts, m.from_json(m.EvaluateJob, args))},
            "apply": lambda args: apply(m.from_json(m.ApplyJob, args)),
            "check": lambda args: check(contexts, m.from_json(m.CheckJob, args)),
            "forget": self._forget,
        }

    def run(self) -> None:
        """Answer requests until the pipe closes (which ends the process)."""
        while True:
            self._answer(self._channel.next())

    def _answer(self, request: Request) -> None:
        try:
            self._channel.check_cancelled()
            self._channel.answer(m.to_json(self._operation(request.op)(request.args)))
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

    def _operation(self, name: str) -> Operation:
        if name not in self._operations:
            raise WorkerError(f"no operation {name!r}; there are: {', '.join(self._operations)}")
        return self._operations[name]

    def _forget(self, args: dict[str, Any]) -> dict[str, Any]:
        self._contexts.forget(args["run"])
        return {}


def _cause(error: CoveyError) -> BaseException | None:
    # The place in the user's code, for the operator of this machine; the message alone goes further.
    return error.__cause__ if isinstance(error, TaskError) else None


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit(f"the worker cannot compute on {name!r}: torch {torch.__version__} sees no CUDA device here")
    return torch.device(name)
