"""A model with all that makes models difficult, on real processes: trained, exported, loaded."""

from __future__ import annotations

import importlib
import os

import pytest
from safetensors.torch import load_file

from covey.errors import CoveyError
from covey.testing.federation import Federation
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

TASK = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

from covey.learning.task import Task


class Nasty(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(3, 4), nn.Linear(4, 3, bias=False)
        self.head.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(4)
        self.again = self.norm
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.spare = nn.Parameter(torch.empty(0))
        self.ids = nn.Parameter(torch.tensor([3, 4]), requires_grad=False)
        self.register_buffer("mask", torch.triu(torch.full((3, 3), -torch.inf), 1))
        self.register_buffer("small", torch.ones(3).half())
        self.register_buffer("flags", torch.tensor([True, False, True]))
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.calls += 1
        x = self.again(self.norm(x)) * self.scale * (1 + 0.1 * self.calls)
        return torch.softmax(self.head(x) + self.mask[1], 1)


class Task(Task):
    class Options(Task.Options):
        frozen: bool = False

    def model(self):
        return Nasty().requires_grad_(False) if self.options.frozen else Nasty()

    def train_data(self, data):
        x = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
        return TensorDataset(x, (x[:, 0] > 0).long())

    def eval_data(self, data):
        return self.train_data(data)
"""


def test_a_difficult_model_comes_back_into_its_own_class(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "nasty.py"
    path.write_text(TASK)
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])}
    with Federation(tmp_path / "federation", nodes=2, env=env) as federation:
        federation.start_coordinator(options=["--allow-paths"])
        federation.join()
        for index in range(2):
            (federation.node_dir(index) / "node.toml").write_text('[policy]\nallow_paths = ["nasty:Task"]\n')
            federation.start_node(index)
        federation.wait_connected(2)
        with pytest.raises(CoveyError, match=r"all parameters are frozen \(among them 'scale'\)"):
            federation.submit(spec("frozen", task="nasty:Task", options="frozen = true"))
        run = federation.submit(spec("nasty", task="nasty:Task", rounds=3))
        federation.wait_round(run, 1)
        federation.kill_worker("n0")  # what is not in the state_dict goes with it, and must make no difference
        sha = federation.wait(run)["model_sha256"]
        again = federation.submit(spec("again", task="nasty:Task", rounds=3))
        assert federation.wait(again)["model_sha256"] == sha
        federation.cli(
            "run", "export", run, "--to", tmp_path / "m.safetensors", "--data-dir", federation.coordinator_dir
        )
    tensors = load_file(tmp_path / "m.safetensors")
    importlib.import_module("nasty").Nasty().load_state_dict(tensors, strict=True)
    assert tensors["mask"].isneginf().sum() == 3
