"""Everything that a worker can do, one row an operation. Free of torch: functions are named, the child imports them.

A new operation is its job and result, a row here, and a function `(job, host) -> result`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Never, TypeVar

from covey.worker.jobs.evaluation import EvaluateJob, EvaluateResult
from covey.worker.jobs.mixtures import MixJob, MixResult
from covey.worker.jobs.runs import (
    CheckJob,
    CheckResult,
    DescribeJob,
    Description,
    HelloJob,
    HelloResult,
    InitialJob,
    InitialResult,
)
from covey.worker.jobs.several import SeveralJob, SeveralResult
from covey.worker.jobs.steps import StepJob, StepResult
from covey.worker.jobs.training import TrainJob, TrainProgress, TrainResult
from covey.worker.jobs.versions import ApplyJob, ApplyResult

J = TypeVar("J")
R = TypeVar("R")
P = TypeVar("P")


@dataclass(frozen=True)
class Operation(Generic[J, R, P]):
    """One operation; its type parameters are those of its job, its result and its progress (`Never`: it reports none).

    Attributes:
        name: On the pipe.
        job: The type of its job.
        result: The type of its result.
        function: `module:function` in the child; takes the job and a `covey.worker.program.host.Host`.
        progress: The type of what it reports meanwhile; None: nothing.
    """

    name: str
    job: type[J]
    result: type[R]
    function: str
    progress: type[P] | None = None


EXECUTE = "covey.worker.execute"

HELLO: Operation[HelloJob, HelloResult, Never] = Operation("hello", HelloJob, HelloResult, f"{EXECUTE}.node_ops:hello")
"""Wait until the child is ready."""

DESCRIBE: Operation[DescribeJob, Description, Never] = Operation(
    "describe", DescribeJob, Description, f"{EXECUTE}.coordinator_ops:describe"
)
"""Validate everything that a specification names, with the plug-ins installed here.

Raises SpecError where an option is wrong or a combination impossible, PluginError where a name is not installed.
"""

INITIAL: Operation[InitialJob, InitialResult, Never] = Operation(
    "initial", InitialJob, InitialResult, f"{EXECUTE}.coordinator_ops:initial"
)
"""Make a run's first model from its seed, as a synced file.

Raises PluginError where the task is not installed, TaskError where its code failed.
"""

TRAIN: Operation[TrainJob, TrainResult, TrainProgress] = Operation(
    "train", TrainJob, TrainResult, f"{EXECUTE}.node_ops:train", TrainProgress
)
"""Train locally; the update's parts are files afterwards, not synced.

Raises LayoutError where task, base file and run do not belong together, TaskError where the task's code failed or
training diverged, PluginError where something is not installed or not allowed here.
"""

EVALUATE: Operation[EvaluateJob, EvaluateResult, Never] = Operation(
    "evaluate", EvaluateJob, EvaluateResult, f"{EXECUTE}.node_ops:evaluate"
)
"""Evaluate a model file.

Raises LayoutError where the file is not one of the task's model, TaskError where the task's code failed.
"""

STEP: Operation[StepJob, StepResult, Never] = Operation("step", StepJob, StepResult, f"{EXECUTE}.step_op:step")
"""Judge a run's answers: of a round, or of one node; the next version, if there is one, as synced files.

Raises LayoutError where a version or a state file is not of the layout, RunFailed where rule or policy cannot be
applied.
"""

APPLY: Operation[ApplyJob, ApplyResult, Never] = Operation("apply", ApplyJob, ApplyResult, f"{EXECUTE}.node_ops:apply")
"""Make a version from the one before it and the committed change, as a synced file.

Raises LayoutError where a file is not of the run's layout, LimitExceeded where the change is too long.
"""

MIX: Operation[MixJob, MixResult, Never] = Operation("mix", MixJob, MixResult, f"{EXECUTE}.mix_op:mix")
"""Mix a node's model with those of peers, and with what training did, as a file.

Raises LayoutError where a file is not of the run's layout, TaskError where the mixture is not finite.
"""

SEVERAL: Operation[SeveralJob, SeveralResult, Never] = Operation(
    "several", SeveralJob, SeveralResult, f"{EXECUTE}.several_op:several"
)
"""Trainings and mixtures of several virtual nodes, one after the other. Raises as TRAIN and MIX."""

CHECK: Operation[CheckJob, CheckResult, Never] = Operation("check", CheckJob, CheckResult, f"{EXECUTE}.node_ops:check")
"""Train one local batch.

Raises PluginError where the task is not installed or not allowed here, TaskError where its code failed.
"""

OPERATIONS: tuple[Operation[Any, Any, Any], ...] = (
    HELLO,
    DESCRIBE,
    INITIAL,
    TRAIN,
    EVALUATE,
    STEP,
    APPLY,
    MIX,
    SEVERAL,
    CHECK,
)
