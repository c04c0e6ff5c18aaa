from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import pytest_asyncio
import torch
from safetensors.torch import load_file
from torch import nn

from covey.artifact import artifact_of_file
from covey.errors import LayoutError, PluginError, SpecError, TaskError, WorkerDied, WorkerError
from covey.layout import Layout
from covey.learning.partition import partition
from covey.learning.state import layout_of, model_sha256, write_model
from covey.parts import DeclaredPart
from covey.seeds import derive_seed
from covey.spec import RunSpec, parse_data, parse_json
from covey.worker.client.client import Worker
from covey.worker.client.supervisor import WorkerSupervisor
from covey.worker.jobs.aggregation import AggregateJob, AggregateResult, AggregateRow
from covey.worker.jobs.evaluation import EvaluateJob
from covey.worker.jobs.operations import AGGREGATE, CHECK, DESCRIBE, EVALUATE, HELLO, INITIAL, TRAIN, Operation
from covey.worker.jobs.runs import CheckJob, DescribeJob, Description, HelloJob, HelloResult, InitialJob, InitialResult
from covey.worker.jobs.training import TrainJob, TrainProgress, TrainResult
from tests.unit.worker import worker_tasks

ROOT = Path(__file__).resolve().parents[2]
NODES = 3

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]


def spec_of(task: str = "Normed", /, **sections: Any) -> str:
    name = task if task.islower() else f"worker_tasks:{task}"
    fields: dict[str, Any] = {"name": "test", "seed": 7, "task": {"name": name}, **sections}
    fields.setdefault("training", {"learning_rate": 0.1, "batch_size": 8, "local_epochs": 2})
    return parse_data(fields).to_json()


@pytest.fixture(scope="module")
def tasks_path() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT / "tests" / "unit" / "worker"))
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(tasks_path: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worker]:
    found = await Worker.start(tmp_path_factory.mktemp("worker"))
    yield found
    await found.stop()
    assert not psutil.pid_exists(found.pid)


class Run:
    """A run on one worker, its files in one folder."""

    def __init__(self, worker: Worker, folder: Path, spec: str, name: str = "run") -> None:
        self.worker, self.folder, self.spec, self.name = worker, folder, spec, name
        self.base, self.layout, self.state = folder / "base", "", {}

    async def initial(self) -> InitialResult:
        made = await self.worker.do(INITIAL, InitialJob(self.name, self.spec, self.base, True))
        self.layout = made.layout
        return made

    def job(self, index: int, number: int = 1, **fields: Any) -> TrainJob:
        scratch = {part: self.folder / f"{part}-{index}" for part in ("model", "buffers")}
        fields = {"base": self.base, "scratch": scratch, "allow_path": True, **fields}
        return TrainJob(
            run=self.name,
            spec_json=self.spec,
            layout=self.layout,
            round=number,
            roster_index=index,
            num_partitions=NODES,
            **fields,
        )

    async def train(self, index: int, number: int = 1, **fields: Any) -> TrainResult:
        return await self.worker.do(TRAIN, self.job(index, number, **fields))

    def row(self, index: int, result: TrainResult) -> AggregateRow:
        return AggregateRow(f"node-{index}", result.examples, {p.name: p.path for p in result.parts})

    async def aggregate(
        self, rows: list[AggregateRow], number: int = 1, slots: tuple[str, ...] = ()
    ) -> AggregateResult:
        result = await self.worker.do(
            AGGREGATE,
            AggregateJob(
                run=self.name,
                spec_json=self.spec,
                layout=self.layout,
                round=number,
                base=self.base,
                rows=tuple(rows),
                state=self.state,
                out=self.folder / f"version-{number}",
                out_state={slot: self.folder / f"{slot.replace('/', '-')}-{number}" for slot in slots},
            ),
        )
        self.state = {part.name: part.path for part in result.state}
        return result

    async def round(self, number: int, slots: tuple[str, ...] = ()) -> AggregateResult:
        rows = [self.row(i, await self.train(i, number)) for i in range(NODES)]
        result = await self.aggregate(rows, number, slots)
        self.base = self.folder / f"version-{number}"
        return result


def eventually(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def plain_model() -> nn.Module:
    torch.manual_seed(derive_seed(7, "model"))
    return worker_tasks.Normed().model()


def plain_local_training(model: nn.Module, spec: RunSpec, index: int, number: int) -> int:
    """A loop as anyone would write it, over the same part and the same order of batches."""
    data = worker_tasks.made(48, 1)
    part = partition(spec.data, index, NODES, spec.seed, examples=len(data))
    generator = torch.Generator().manual_seed(derive_seed(spec.seed, "batches", number, index))
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.training.learning_rate)
    model.train()
    for _ in range(spec.training.local_epochs or 0):
        for batch in part[torch.randperm(len(part), generator=generator)].split(spec.training.batch_size):
            x, y = (t[batch] for t in data.tensors)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return len(part)


def plain_fedavg(spec: RunSpec, rounds: int) -> dict[str, torch.Tensor]:
    globally = plain_model().state_dict()
    for number in range(1, rounds + 1):
        local, weights = [], []
        for index in range(NODES):
            model = plain_model()
            model.load_state_dict(globally)
            weights.append(plain_local_training(model, spec, index, number))
            local.append(model.state_dict())
        shares = [w / sum(weights) for w in weights]
        globally = {
            name: sum(s * values[name].double() for s, values in zip(shares, local, strict=True)).to(first.dtype)
            for name, first in local[0].items()
        }
    return globally


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, values in first.items():
        torch.testing.assert_close(values, second[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("payload", ["delta", "parameters"])
async def test_rounds_equal_a_plain_federated_averaging(worker: Worker, tmp_path: Path, payload: str) -> None:
    run = Run(worker, tmp_path, spec_of(exchange={"payload": payload}), payload)
    await run.initial()
    for number in (1, 2):
        result = await run.round(number)
    assert result.enough
    same(load_file(run.base), plain_fedavg(parse_json(run.spec), 2))


async def test_a_gradient_is_followed_downhill(worker: Worker, tmp_path: Path) -> None:
    training = {"batch_size": 8, "local_steps": 1}
    optimizer = {"name": "sgd", "options": {"learning_rate": 0.5}}
    spec = spec_of(exchange={"payload": "gradient"}, training=training, server_optimizer=optimizer)
    run = Run(worker, tmp_path, spec)
    await run.initial()
    before, gradient = load_file(run.base), torch.zeros(0)
    data, parsed = worker_tasks.made(48, 1), parse_json(spec)
    for index in range(NODES):
        model = plain_model().train()
        part = partition(parsed.data, index, NODES, parsed.seed, examples=48)
        generator = torch.Generator().manual_seed(derive_seed(parsed.seed, "batches", 1, index))
        batch = part[torch.randperm(len(part), generator=generator)][:8]
        x, y = (t[batch] for t in data.tensors)
        nn.functional.cross_entropy(model(x), y).backward()
        mine = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]) / NODES
        gradient = mine if index == 0 else gradient + mine
    await run.round(1)
    after, names = load_file(run.base), [name for name, _ in plain_model().named_parameters()]
    moved = torch.cat([(after[name] - before[name]).flatten() for name in names])
    torch.testing.assert_close(moved, -0.5 * gradient, rtol=1e-4, atol=1e-6)


async def test_a_server_optimizer_keeps_its_state_in_files(worker: Worker, tmp_path: Path) -> None:
    optimizer = {"name": "momentum", "options": {"learning_rate": 0.5, "momentum": 0.8}}
    run = Run(worker, tmp_path, spec_of(server_optimizer=optimizer))
    await run.initial()
    layout = Layout.from_json(run.layout).part("model")
    vector = nn.Parameter(flat(run.base, layout))
    reference = torch.optim.SGD([vector], lr=0.5, momentum=0.8)
    for number in (1, 2, 3):
        rows = [run.row(i, await run.train(i, number)) for i in range(NODES)]
        updates = [np.fromfile(row.parts["model"], dtype="<f4") for row in rows]
        vector.grad = -torch.from_numpy(np.average(updates, axis=0, weights=[r.weight for r in rows])).float()
        reference.step()
        result = await run.aggregate(rows, number, ("optimizer/momentum",))
        run.base = tmp_path / f"version-{number}"
        assert [(s.name, s.artifact) for s in result.state] == [
            ("optimizer/momentum", artifact_of_file(tmp_path / f"optimizer-momentum-{number}"))
        ]
        torch.testing.assert_close(flat(run.base, layout), vector.data, rtol=1e-5, atol=1e-6)


def flat(path: Path, layout: Layout) -> torch.Tensor:
    tensors = load_file(path)
    return torch.cat([tensors[spec.name].flatten() for spec in layout.tensors])


async def test_files_are_what_is_said_of_them(worker: Worker, tmp_path: Path) -> None:
    run = Run(worker, tmp_path, spec_of())
    for part in ("model-0", "buffers-0", "base", "version-1"):
        (tmp_path / part).write_bytes(b"\xff" * (3 << 20))
    made = await run.initial()
    layout = Layout.from_json(made.layout)
    assert layout == layout_of(plain_model())
    assert made.artifact == artifact_of_file(run.base)
    assert made.model_sha256 == model_sha256(run.base, layout)
    same(load_file(run.base), plain_model().state_dict())
    trained = await run.train(0)
    assert [part.artifact for part in trained.parts] == [artifact_of_file(part.path) for part in trained.parts]
    assert [part.path.stat().st_size for part in trained.parts] == [
        4 * layout.part("model").numel,
        layout.part("buffers").nbytes,
    ]
    result = await run.aggregate([run.row(0, trained)])
    assert result.artifact == artifact_of_file(tmp_path / "version-1")
    assert result.model_sha256 == model_sha256(tmp_path / "version-1", layout)


async def test_training_again_gives_the_same_bytes(worker: Worker, tmp_path: Path) -> None:
    run = Run(worker, tmp_path, spec_of())
    await run.initial()
    first = [part.artifact for part in (await run.train(0)).parts]
    other = await run.train(1)
    await run.train(0, 2)
    again = [part.artifact for part in (await run.train(0)).parts]
    run.name = "another"  # of which nothing is held warm
    forgotten = [part.artifact for part in (await run.train(0)).parts]
    fresh = await Worker.start(tmp_path / "fresh")
    try:
        run.worker = fresh
        elsewhere = [part.artifact for part in (await run.train(0)).parts]
    finally:
        await fresh.stop()
    assert first == again == forgotten == elsewhere
    assert first != [part.artifact for part in other.parts]


async def test_bad_updates_cost_themselves_only(worker: Worker, tmp_path: Path) -> None:
    run = Run(worker, tmp_path, spec_of())
    await run.initial()
    rows = [run.row(i, await run.train(i)) for i in range(NODES)]
    good = await run.aggregate(rows[:1])
    spoil(rows[1].parts["model"], np.float32(np.nan), 5)
    spoil(rows[2].parts["buffers"], np.float32(np.inf), -1)
    short = tmp_path / "short"
    short.write_bytes(b"\0" * 8)
    rows.append(AggregateRow("node-3", 10, {**rows[0].parts, "model": short}))
    rows.append(AggregateRow("node-4", 10, {"model": rows[0].parts["model"]}))
    rows.append(AggregateRow("node-5", -1.0, rows[0].parts))
    result = await run.aggregate(rows)
    assert result.model_sha256 == good.model_sha256
    assert [(v.node, v.accepted, v.share) for v in result.verdicts] == [
        (f"node-{i}", i == 0, float(i == 0)) for i in range(6)
    ]
    assert [v.reason for v in result.verdicts[:3]] == ["", "non-finite", "non-finite"]
    assert all(v.reason for v in result.verdicts[3:])


def spoil(path: Path, value: np.float32, index: int) -> None:
    values = np.fromfile(path, dtype="<f4")
    values[index] = value
    values.tofile(path)


async def test_too_few_updates_make_no_version(worker: Worker, tmp_path: Path) -> None:
    run = Run(worker, tmp_path, spec_of())
    await run.initial()
    row = run.row(0, await run.train(0))
    spoil(row.parts["model"], np.float32(np.nan), 0)
    result = await run.aggregate([row])
    assert not result.enough
    assert (result.artifact, result.state) == (None, ())
    assert [v.accepted for v in result.verdicts] == [False]
    assert not (tmp_path / "version-1").exists()


async def test_shares_are_bounded_and_sum_to_one(worker: Worker, tmp_path: Path) -> None:
    run = Run(worker, tmp_path, spec_of(weights={"max_share": 0.4}))
    await run.initial()
    rows = [run.row(i, await run.train(i)) for i in range(NODES)]
    rows[0] = AggregateRow(rows[0].node, 1e12, rows[0].parts)
    shares = [v.share for v in (await run.aggregate(rows)).verdicts]
    assert shares == pytest.approx([0.4, 0.3, 0.3])


async def test_a_cancelled_training_stops_and_the_worker_goes_on(worker: Worker, tmp_path: Path) -> None:
    endless = spec_of("digits", training={"local_steps": 10**9})
    run = Run(worker, tmp_path, endless)
    await run.initial()
    running = asyncio.Event()
    first = asyncio.create_task(worker.do(TRAIN, run.job(0), lambda p: running.set()))
    queued = asyncio.create_task(worker.do(TRAIN, run.job(1)))
    await running.wait()
    queued.cancel()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(asyncio.CancelledError):
        await queued
    assert (await worker.do(HELLO, HelloJob())).device == "cpu"


async def test_cancelling_all_tells_the_callers(worker: Worker, tmp_path: Path) -> None:
    run = Run(worker, tmp_path, spec_of("digits", training={"local_steps": 10**9}))
    await run.initial()
    seen: list[TrainProgress] = []

    def progress(now: TrainProgress) -> None:
        seen.append(now)
        worker.cancel()

    with pytest.raises(WorkerError, match="cancelled"):
        await worker.do(TRAIN, run.job(0), progress)
    assert seen[0].steps == 10**9
    assert 0 < seen[0].step < 10**9
    assert seen[0].loss > 0


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


async def test_evaluation_on_nodes_and_in_the_centre(worker: Worker, tmp_path: Path) -> None:
    run = Run(worker, tmp_path, spec_of())
    await run.initial()
    job = EvaluateJob("run", run.spec, run.base, "node", node_options={"evaluates": True}, allow_path=True)
    found = (await worker.do(EVALUATE, job)).metrics
    model, data = plain_model().eval(), worker_tasks.made(20, 2)
    logits = model(data.tensors[0])
    assert found["accuracy"] == (float((logits.argmax(1) == data.tensors[1]).sum()), 20.0)
    loss = nn.functional.cross_entropy(logits, data.tensors[1], reduction="sum").item()
    assert found["loss"] == pytest.approx((loss, 20.0), rel=1e-5)
    trained = await run.train(0, evaluate=True, node_options={"evaluates": True})
    assert trained.evaluation == found
    assert (await run.train(0, evaluate=True)).evaluation == {}
    assert (await worker.do(EVALUATE, EvaluateJob("run", run.spec, run.base, "central", allow_path=True))).metrics == {}
    digits = Run(worker, tmp_path, spec_of("digits"), "digits")
    await digits.initial()
    central = (await worker.do(EVALUATE, EvaluateJob("digits", digits.spec, digits.base, "central"))).metrics
    assert central["accuracy"][1] == 360


async def test_a_description_of_what_the_run_needs(worker: Worker, tmp_path: Path) -> None:
    layout = (await Run(worker, tmp_path, spec_of("digits")).initial()).layout
    sha256 = Layout.from_json(layout).part("model").sha256
    part = DeclaredPart("model", "none", sha256, 4 * 4810, True, 1, None, "all", "rule", (), in_model=True)
    assert await worker.do(DESCRIBE, DescribeJob(spec_of("digits"))) == Description(True, 1, {}, (part,))
    adam = await worker.do(DESCRIBE, DescribeJob(spec_of(server_optimizer={"name": "adam"}), True))
    slots = dict.fromkeys(("optimizer/first_moment", "optimizer/second_moment"), adam.parts[0].size_bytes)
    assert adam == Description(False, 1, slots, adam.parts)


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


async def test_an_unknown_operation_is_an_answer(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="hello"):
        await worker.do(Operation("sing", HelloJob, HelloResult, ""), HelloJob())
    with pytest.raises(WorkerError, match="spec_json"):
        await worker.do(Operation("describe", HelloJob, HelloResult, ""), HelloJob())


async def test_a_killed_worker_is_noticed_and_replaced(tmp_path: Path) -> None:
    worker = await Worker.start(tmp_path)
    run = Run(worker, tmp_path, spec_of("digits", training={"local_steps": 10**9}))
    await run.initial()

    def kill(_: TrainProgress) -> None:
        os.kill(worker.pid, signal.SIGKILL)

    with pytest.raises(WorkerDied, match="signal 9"):
        await worker.do(TRAIN, run.job(0), kill)
    assert not worker.alive
    assert await worker.wait() == -signal.SIGKILL
    with pytest.raises(WorkerDied):
        await worker.do(HELLO, HelloJob())
    await worker.stop()
    supervisor = WorkerSupervisor(tmp_path, device="cpu", log_format="console")
    try:
        os.kill((await supervisor.start()).pid, signal.SIGKILL)
        assert (await supervisor.do(HELLO, HelloJob())).device == "cpu"
    finally:
        await supervisor.stop()


async def test_the_fault_point_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVEY_FAULTS", "training-step:3")
    worker = await Worker.start(tmp_path)
    try:
        run = Run(worker, tmp_path, spec_of("digits"))
        await run.initial()
        with pytest.raises(WorkerDied):
            await run.train(0)
    finally:
        await worker.stop()


DAEMON = """
import asyncio, sys
from pathlib import Path
from covey.worker.client.client import Worker
from covey.worker.jobs.operations import INITIAL, TRAIN
from covey.worker.jobs.runs import InitialJob
from covey.worker.jobs.training import TrainJob

async def main(folder, spec):
    worker = await Worker.start(folder)
    made = await worker.do(INITIAL, InitialJob("run", spec, folder / "base"))
    job = TrainJob("run", spec, made.layout, 1, 0, 1, folder / "base", {"model": folder / "model"})
    await worker.do(TRAIN, job, lambda now: print(worker.pid, flush=True))

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


async def test_the_worker_ends_with_its_daemon_while_it_trains(tmp_path: Path) -> None:
    spec = spec_of("digits", training={"local_steps": 10**9})
    command = [sys.executable, "-c", DAEMON, str(tmp_path), spec]
    daemon = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=ROOT)
    assert daemon.stdout is not None
    child = psutil.Process(int(await daemon.stdout.readline()))
    daemon.kill()
    await daemon.communicate()
    child.wait(timeout=10)
    assert not child.is_running()


def is_stopped(status: Path) -> bool:
    return "T (stopped)" in status.read_text()


async def test_a_worker_that_hangs_is_killed(tasks_path: None, tmp_path: Path) -> None:
    worker = await Worker.start(tmp_path)
    await worker.do(HELLO, HelloJob())
    os.kill(worker.pid, signal.SIGSTOP)
    threads = Path(f"/proc/{worker.pid}/task").glob("*/status")
    for status in list(threads):
        await asyncio.to_thread(eventually, functools.partial(is_stopped, status))
    await worker.stop(grace_s=0.05)
    assert await worker.wait() == -signal.SIGKILL
    assert not psutil.pid_exists(worker.pid)
    await worker.stop()
    with pytest.raises(WorkerDied, match="stopped"):
        await worker.do(HELLO, HelloJob())


async def test_two_workers_of_one_folder_take_turns(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = await Worker.start(tmp_path)
    await first.do(HELLO, HelloJob())
    second = await Worker.start(tmp_path, log_file=log)
    try:
        hello = asyncio.create_task(second.do(HELLO, HelloJob()))
        await asyncio.to_thread(eventually, lambda: "waiting for another worker" in log.read_text())
        assert not hello.done()
        await first.stop()
        assert (await hello).device == "cpu"
    finally:
        await first.stop()
        await second.stop()


async def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    worker = await Worker.start(tmp_path, device="cuda", log_file=tmp_path / "log")
    with pytest.raises(WorkerDied, match="exit code 1"):
        await worker.do(HELLO, HelloJob())
    await worker.stop()
    assert "'cuda'" in (tmp_path / "log").read_text()


async def test_the_benchmark_compares_the_two_loops() -> None:
    command = [sys.executable, "-m", "benchmarks.training", "--json", "--device", "cpu"]
    command += ["--models", "mlp", "--repeats", "1", "--seconds", "0.01"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=ROOT)
    output, _ = await process.communicate()
    (row,) = json.loads(output)["rows"]
    assert (row["model"], row["device"], row["steps"] >= 20) == ("mlp", "cpu", True)
    assert row["ratio"] > 0


async def test_a_listener_that_fails_harms_nobody(worker: Worker, tmp_path: Path) -> None:
    run = Run(worker, tmp_path, spec_of("digits", training={"local_steps": 10**9}))
    await run.initial()

    def progress(_: TrainProgress) -> None:
        worker.cancel()
        raise ValueError("the listener's own")

    with pytest.raises(WorkerError, match="cancelled"):
        await worker.do(TRAIN, run.job(0), progress)
    assert (await worker.do(HELLO, HelloJob())).device == "cpu"


async def test_aggregation_holds_blocks_and_not_models(worker: Worker, tmp_path: Path) -> None:
    d, n = 10_000_000, 8
    spec = spec_of(
        "synthetic", task={"name": "synthetic", "options": {"parameters": d}}, server_optimizer={"name": "adam"}
    )
    run = Run(worker, tmp_path, spec)
    await run.initial()
    rng = np.random.default_rng(0)
    for i in range(n):
        (rng.standard_normal(d, dtype=np.float32) * 1e-3).tofile(tmp_path / f"row-{i}")
    rows = [AggregateRow(f"node-{i}", 1.0, {"model": tmp_path / f"row-{i}"}) for i in range(n)]
    slots = ("optimizer/first_moment", "optimizer/second_moment")
    await run.aggregate(rows[:1], 1, slots)
    with AnonymousMemory(worker.pid) as memory:
        result = await run.aggregate(rows, 2, slots)
    assert result.enough
    assert len(memory.samples) > 10
    assert max(memory.samples) - memory.samples[0] < 24 << 20


class AnonymousMemory:
    """Samples a process' anonymous memory, in bytes, as fast as it can."""

    def __init__(self, pid: int) -> None:
        self.samples = [_anonymous_bytes(pid)]
        self._pid, self._over = pid, threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def _sample(self) -> None:
        while not self._over.wait(0.001):
            self.samples.append(_anonymous_bytes(self._pid))

    def __enter__(self) -> AnonymousMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _anonymous_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))) << 10
