import json
import math
from pathlib import Path

import pytest

from covey.artifact import artifact_of
from covey.errors import WorkerError
from covey.worker.jobs import messages as m

ARTIFACT = artifact_of([bytes(1 << 20), b"end"])


def through_json(value: object) -> object:
    return m.from_json(type(value), json.loads(json.dumps(m.to_json(value))))


@pytest.mark.parametrize(
    "value",
    [
        m.TrainJob("r", "{}", "[]", 1, 0, 4, Path("/b"), {"model": Path("/m")}, node_options={"a": [1, None]}),
        m.TrainResult((m.TrainedPart("model", "none", Path("/m"), ARTIFACT),), 3, 4, 0.5, {"loss": (1.5, 3)}, {}),
        m.AggregateJob(
            "r", "{}", "[]", 2, Path("/b"), (m.AggregateRow("n", 2.0, {"model": Path("/m")}, 0.5),), {}, Path("/o"), {}
        ),
        m.AggregateResult(False, (m.RowVerdict("n", False, "non-finite", 0.0, {}),)),
        m.AggregateResult(True, (), ARTIFACT, "ab", (m.StateFile("momentum", Path("/s"), ARTIFACT),)),
        m.InitialResult("[]", ARTIFACT, "ab"),
        m.Description(True, 2, ("a", "b")),
    ],
)
def test_jobs_and_results_survive_json(value: object) -> None:
    assert through_json(value) == value


def test_numbers_that_are_not_finite_survive_json() -> None:
    found = through_json(m.TrainProgress(1, 2, math.inf, 0.0))
    assert isinstance(found, m.TrainProgress)
    assert found.loss == math.inf


@pytest.mark.parametrize("value", [{}, {"digest": "a", "size_bytes": 1, "chunk_sha256": "!"}, None])
def test_what_is_not_an_artifact_is_refused(value: object) -> None:
    with pytest.raises(WorkerError, match="artifact"):
        m.artifact_from_json(value)


def test_a_wrong_job_is_refused_by_name() -> None:
    with pytest.raises(WorkerError, match=r"DescribeJob.*spec_json"):
        m.from_json(m.DescribeJob, {"spec": "{}"})
