"""The node's worker behind its port, with a real process on the other side."""

import pytest
from covey.node.worker import KeptWorker
from covey.worker.jobs.messages import EvaluateJob, TrainJob

from covey.spec import RunSpec, TaskSection
from covey.worker.client.supervisor import WorkerKeeper

SPEC = RunSpec(name="x", task=TaskSection(name="synthetic", options={"parameters": 100})).to_json()


@pytest.fixture
async def worker(tmp_path):
    keeper = WorkerKeeper(tmp_path, device="cpu", log_format="console")
    yield KeptWorker(keeper)
    await keeper.stop()


async def test_the_operations_of_a_node_are_done(worker, tmp_path):
    made = await worker.initial("r", SPEC, tmp_path / "model", allow_path=False)
    assert made.artifact.size_bytes == (tmp_path / "model").stat().st_size
    job = TrainJob("r", SPEC, made.layout, 1, 0, 1, tmp_path / "model", {"model": tmp_path / "update"})
    result = await worker.train(job, lambda progress: None)
    assert [part.path for part in result.parts] == [tmp_path / "update"]
    assert result.steps > 0
    assert isinstance(await worker.evaluate(EvaluateJob("r", SPEC, tmp_path / "model", "node")), dict)
