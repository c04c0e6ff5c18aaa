"""Rounds between real processes: the result is that of federated averaging, and the same every time."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from covey.cli.framework.fields import ROUND_FIELDS, RUN_DETAIL_FIELDS
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


def export(federation, run, path, version="N"):
    arguments = ["run", "export", run, "--to", path, "--data-dir", federation.coordinator_dir]
    federation.cli(*arguments, *(["--version", version] if version != "N" else []))
    return load_file(path)


def test_a_run_completes_and_can_be_read_back(federation, tmp_path):
    run = federation.submit(spec(rounds=3))
    shown = federation.wait(run)
    assert shown["rounds_committed"] == shown["model_version"] == 3
    assert shown["metrics"]["accuracy"] > 0.5
    rounds = federation.rounds(run)
    assert [r["state"] for r in rounds] == ["committed"] * 3
    assert all(r["accepted"] == 2 and r["rejected"] == 0 and r["bytes_received"] > 0 for r in rounds)
    detail = federation.admin.round(run, 2)
    assert [u["verdict"] for u in detail["updates"]] == ["accepted", "accepted"]
    assert sum(u["share"] for u in detail["updates"]) == pytest.approx(1)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    weights = export(federation, run, tmp_path / "model.safetensors")
    assert sum(t.numel() for t in weights.values()) == sum(p.numel() for p in model.parameters())


def test_the_same_seed_gives_the_same_model_and_another_seed_another(federation):
    first, second, other = (
        federation.wait(federation.submit(spec(name=name, rounds=2, seed=seed)))["model_sha256"]
        for name, seed in (("one", 11), ("two", 11), ("three", 12))
    )
    assert first == second
    assert first != other


def test_the_result_is_that_of_plain_federated_averaging(federation, tmp_path):
    """An independent loop: plain torch, one process, the same data order, a weighted mean of the weights."""
    run = federation.submit(spec(name="oracle", rounds=2, extra="[keep]\nversions = 10\n[weights]\nmax_share = 1.0"))
    federation.wait(run)
    start = export(federation, run, tmp_path / "v0.safetensors", "0")
    final = export(federation, run, tmp_path / "v2.safetensors")
    expected = plain_fedavg(start, nodes=2, rounds=2, seed=7)
    assert set(final) == set(expected)
    for name, value in final.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)


def plain_fedavg(start, *, nodes, rounds, seed):
    from covey.learning.partition import part_of
    from covey.learning.task import NodeData
    from covey.learning.tasks.digits import Digits
    from covey.seeds import derive_seed
    from covey.spec import DataSection

    task = Digits({})
    dataset = task.train_data(NodeData({}, {}))
    x, y = dataset.tensors
    weights = {name: value.clone() for name, value in start.items()}
    shards = [part_of(task, dataset, DataSection(), k, nodes, seed) for k in range(nodes)]
    for number in range(1, rounds + 1):
        trained = []
        for k, shard in enumerate(shards):
            model = task.model()
            model.load_state_dict(weights)
            order = torch.Generator().manual_seed(derive_seed(seed, "batches", number, k))
            shuffled = torch.as_tensor(np.asarray(shard))[torch.randperm(len(shard), generator=order)]
            for batch in shuffled.split(32):
                loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
                grads = torch.autograd.grad(loss, list(model.parameters()))
                with torch.no_grad():
                    for parameter, grad in zip(model.parameters(), grads, strict=True):
                        parameter.sub_(0.1 * grad)
            trained.append((len(shard), model.state_dict()))
        total = sum(count for count, _ in trained)
        weights = {name: sum(count / total * state[name] for count, state in trained) for name in weights}
    return weights


def test_the_command_line_shows_what_happened(federation, tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(spec(name="by-hand", rounds=1))
    where = ["--data-dir", federation.coordinator_dir]
    run = federation.cli("run", "submit", path, *where).split()[-1]
    federation.wait(run)
    shown = json.loads(federation.cli("run", "show", "by-hand", "--json", *where))
    assert shown["run"] == run
    assert set(shown) >= set(RUN_DETAIL_FIELDS)
    rounds = json.loads(federation.cli("round", "list", run, "--json", *where))
    assert set(rounds[0]) == set(ROUND_FIELDS)
    nodes = json.loads(federation.cli("node", "list", "--json", *where))
    assert [n["state"] for n in nodes] == ["connected", "connected"]
    assert "n0" in federation.cli("round", "show", run, "1", *where)
    assert "every signature is valid" in federation.cli("run", "audit", run, *where)


def test_runs_queue_up(federation):
    runs = [federation.submit(spec(name=f"queued-{i}", rounds=1)) for i in range(3)]
    shown = [federation.wait(run) for run in runs]
    ends = [s["ended_at"] for s in shown]
    assert ends == sorted(ends)


def test_a_stopped_run_says_who_stopped_it(federation):
    run = federation.submit(spec(name="endless", rounds=100000))
    federation.wait_round(run, 1)
    stopped = federation.admin.stop_run(run)
    assert stopped["state"] == "stopped"
    assert "stopped by" in stopped["reason"]
    federation.wait(federation.submit(spec(name="after", rounds=1)))
