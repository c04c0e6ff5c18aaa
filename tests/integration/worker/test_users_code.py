"""The user's task and specification: what is checked before, and what is said when it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from covey.errors import LayoutError, PluginError, SpecError, TaskError
from covey.layout import Layout
from covey.learning.models.state import layout_of, write_model
from covey.parts import DeclaredPart
from covey.worker.client.client import Worker
from covey.worker.jobs.operations import CHECK, DESCRIBE
from covey.worker.jobs.runs import CheckJob, DescribeJob, Description
from tests.integration.worker.plain import plain_model
from tests.integration.worker.runs import Run, spec_of
from tests.unit.worker import worker_tasks

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize(
    ("task", "text"),
    [("Failing", "ValueError: the scanner is out of film"), ("Exiting", "sys.exit"), ("Exploding", "diverged")],
)
async def test_errors_of_the_users_code_are_task_errors(worker: Worker, tmp_path: Path, task: str, text: str) -> None:
    run = Run(worker, tmp_path, spec_of(task))
    await run.initial()
    with pytest.raises(TaskError, match=text):
        await run.train(0)
    assert worker.alive


async def test_a_diverging_training_says_what_to_change(worker: Worker, tmp_path: Path) -> None:
    run = Run(worker, tmp_path, spec_of(training={"learning_rate": 1e38, "local_steps": 20}))
    await run.initial()
    with pytest.raises(TaskError, match="learning_rate"):
        await run.train(0)


@pytest.mark.usefixtures("forking")
async def test_what_the_user_prints_stays_out_of_the_pipe(tasks_path: None, tmp_path: Path) -> None:
    worker = await Worker.start(tmp_path, log_file=tmp_path / "log")
    try:
        run = Run(worker, tmp_path, spec_of("Talking"))
        await run.initial()
        result = await run.train(0, node_paths={"folder": "/somewhere"})
    finally:
        await worker.stop()
    assert result.examples == 16
    output = (tmp_path / "log").read_text()
    assert '{"id": 1, "result": {}}' in output
    assert "/somewhere" in output


@pytest.mark.usefixtures("forking")
async def test_a_task_that_prints_a_gigabyte_trains_on_and_fills_no_disk(tasks_path: None, tmp_path: Path) -> None:
    log, before = tmp_path / "log", psutil.Process().memory_info().rss
    worker = await Worker.start(tmp_path, log_file=log)
    try:
        run = Run(worker, tmp_path, spec_of(task={"name": "worker_tasks:Loud", "options": {"printed_bytes": 1 << 30}}))
        await run.initial()
        assert (await run.train(0)).steps > 0
        assert psutil.Process().memory_info().rss - before < 64 << 20
    finally:
        await worker.stop()
    assert log.stat().st_size < 2 << 20
    assert b"bytes of output are left out here]" in log.read_bytes()


async def test_a_task_by_path_needs_permission(worker: Worker, tmp_path: Path) -> None:
    run = Run(worker, tmp_path, spec_of())
    await run.initial()
    with pytest.raises(PluginError, match="digits"):
        await run.train(0, allow_path=False)


async def test_another_model_than_the_runs_is_named(worker: Worker, tmp_path: Path) -> None:
    run = Run(worker, tmp_path, spec_of())
    await run.initial()
    run.spec = spec_of("Wider")
    with pytest.raises(LayoutError, match=r"'0\.weight' float32 \[7, 8\].*\[6, 8\]"):
        await run.train(0)


async def test_a_base_of_another_layout_is_refused(worker: Worker, tmp_path: Path) -> None:
    run = Run(worker, tmp_path, spec_of())
    await run.initial()
    rows = [run.row(0, await run.train(0))]
    wider = worker_tasks.Wider().model()
    write_model(run.base, layout_of(wider), wider)
    with pytest.raises(LayoutError):
        await run.train(0)
    with pytest.raises(LayoutError):
        await run.aggregate(rows)


async def test_a_description_of_what_the_run_needs(worker: Worker, tmp_path: Path) -> None:
    layout = (await Run(worker, tmp_path, spec_of("digits")).initial()).layout
    sha256 = Layout.from_json(layout).part("model").sha256
    part = DeclaredPart("model", "none", sha256, 4 * 4810, True, 1, None, "all", "rule", (), in_model=True)
    said = await worker.do(DESCRIBE, DescribeJob(spec_of("digits")))
    assert said == Description(True, 1, {}, (part,), model_bytes=Layout.from_json(layout).file_bytes)
    adam = await worker.do(DESCRIBE, DescribeJob(spec_of(server_optimizer={"name": "adam"}), True))
    slots = dict.fromkeys(("optimizer/first_moment", "optimizer/second_moment"), adam.parts[0].size_bytes)
    assert adam == Description(False, 1, slots, adam.parts, model_bytes=adam.model_bytes)


@pytest.mark.parametrize(
    ("sections", "error", "text"),
    [
        ({"task": {"name": "digits", "options": {"hiden": 3}}}, SpecError, r"task\.options\.hiden.*hidden"),
        ({"aggregation": {"name": "mode"}}, PluginError, "mean"),
        ({"aggregation": {"options": {"f": 1}}}, SpecError, r"aggregation\.options\.f"),
        ({"exchange": {"options": {"bits": 1}}}, SpecError, r"exchange\.options\.bits"),
        ({"server_optimizer": {"name": "adam", "options": {"beta1": 2}}}, SpecError, r"beta1.*2"),
        ({"server_optimizer": {"name": "sdg"}}, PluginError, "sgd"),
        ({"data": {"partition": "key"}}, SpecError, r"data\.partition"),
        ({"evaluation": {"where": "central"}, "task": {"name": "synthetic"}}, SpecError, r"evaluation\.where"),
        (
            {"exchange": {"payload": "gradient"}, "training": {"local_steps": 1}, "task": {"name": "synthetic"}},
            SpecError,
            r"exchange\.payload",
        ),
        (
            {"training": {"optimizer": "momentum", "schedule": {"momentum": {"kind": "exponential", "factor": 2}}}},
            SpecError,
            "momentum",
        ),
    ],
)
async def test_a_wrong_specification_is_refused_at_submission(
    worker: Worker, sections: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        await worker.do(DESCRIBE, DescribeJob(spec_of("digits", **sections)))


async def test_check_trains_one_batch(worker: Worker) -> None:
    found = await worker.do(CHECK, CheckJob(spec_of(), allow_path=True))
    layout = layout_of(plain_model())
    assert (found.examples, found.layout_sha256) == (48, layout.sha256)
    assert (found.parameters, found.device) == (layout.part("model").numel, "cpu")
    assert found.loss > 0
    assert found.seconds_per_step > 0
