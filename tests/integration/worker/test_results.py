"""What a worker computes: the same as plain code would, and the same bytes each time."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from covey.artifact import artifact_of_file
from covey.layout import Layout
from covey.learning.models.state import layout_of, model_sha256
from covey.learning.partition import partition
from covey.seeds import derive_seed
from covey.spec import parse_json
from covey.worker.client.client import Worker
from covey.worker.jobs.evaluation import EvaluateJob
from covey.worker.jobs.operations import EVALUATE
from tests.integration.worker.plain import flat, plain_fedavg, plain_model, same
from tests.integration.worker.runs import NODES, Run, spec_of
from tests.unit.worker import worker_tasks

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]


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


async def test_the_benchmark_compares_the_two_loops() -> None:
    command = [sys.executable, "-m", "benchmarks.training", "--json", "--device", "cpu"]
    command += ["--models", "mlp", "--repeats", "1", "--seconds", "0.01"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=ROOT)
    output, _ = await process.communicate()
    (row,) = json.loads(output)["rows"]
    assert (row["model"], row["device"], row["steps"] >= 20) == ("mlp", "cpu", True)
    assert row["ratio"] > 0
