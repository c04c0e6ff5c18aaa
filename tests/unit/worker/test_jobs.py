import json
import math
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from covey.aggregation.verdicts import Verdict
from covey.artifact import artifact_from_json, artifact_of
from covey.errors import WorkerError
from covey.parts import DeclaredPart
from covey.worker.jobs.files import WrittenFile
from covey.worker.jobs.operations import OPERATIONS, Operation
from covey.worker.jobs.runs import DescribeJob, Description, InitialResult
from covey.worker.jobs.serialization import from_json, to_json
from covey.worker.jobs.steps import OpenedPhase, StepAnswer, StepJob, StepResult
from covey.worker.jobs.training import TrainJob, TrainProgress, TrainResult
from covey.worker.program.host import Host
from covey.worker.program.loop import function_of

ARTIFACT = artifact_of([bytes(1 << 20), b"end"])

PART = DeclaredPart("m", "none", "ab", 4, True, 1, None, "all", "mean", ("version",))


def through_json(value: object) -> object:
    return from_json(type(value), json.loads(json.dumps(to_json(value))))


@pytest.mark.parametrize(
    "value",
    [
        TrainJob("r", "{}", "[]", 1, 0, 4, Path("/b"), {"model": Path("/m")}, node_options={"a": [1, None]}),
        TrainResult((WrittenFile("model", Path("/m"), ARTIFACT),), 3, 4, 0.5, {"loss": (1.5, 3)}, {}),
        StepJob(
            "r", "{}", "[]", 1, {1: Path("/b")}, (StepAnswer("n", 2.0, {"m": Path("/m")}, 0.5),), {}, Path("/o"), {}
        ),
        StepJob(
            "r", "{}", "[]", 1, {1: Path("/b"), 0: Path("/a")}, (), {}, Path("/o"), {}, updates={3: {"m": Path("/m")}}
        ),
        StepResult((Verdict("n", "rejected", "non-finite"), Verdict("o", "held", number=3)), False),
        StepResult((), opens=OpenedPhase(2, {"n": "{}"}, {"o": "lied"})),
        StepResult((), artifact=ARTIFACT, model_sha256="ab", state=(WrittenFile("momentum", Path("/s"), ARTIFACT),)),
        InitialResult("[]", ARTIFACT, "ab"),
        Description(True, 2, {"a": 3}, (PART,), ("residual",)),
    ],
)
def test_jobs_and_results_survive_json(value: object) -> None:
    assert through_json(value) == value


def test_numbers_that_are_not_finite_survive_json() -> None:
    found = through_json(TrainProgress(1, 2, math.inf, 0.0))
    assert isinstance(found, TrainProgress)
    assert found.loss == math.inf


@pytest.mark.parametrize("value", [{}, {"digest": "a", "size_bytes": 1, "chunk_sha256": "!"}, None])
def test_what_is_not_an_artifact_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="artifact"):
        artifact_from_json(value)


def test_a_wrong_job_is_refused_by_name() -> None:
    with pytest.raises(WorkerError, match=r"DescribeJob.*spec_json"):
        from_json(DescribeJob, {"spec": "{}"})


@pytest.mark.parametrize("operation", OPERATIONS, ids=[operation.name for operation in OPERATIONS])
def test_every_operation_has_a_function_with_its_types(operation: Operation[Any, Any, Any]) -> None:
    hints = get_type_hints(function_of(operation))
    assert hints == {"job": operation.job, "host": Host, "return": operation.result}


def test_operations_have_names_of_their_own() -> None:
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)
