"""A task that hangs, raises or measures nonsense on one node: what it costs, and what is said of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from covey.testing.federation import Federation
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

TASK = """
import math
import time

import torch
from torch import nn
from torch.utils.data import TensorDataset

from covey.learning.task import Stat, Task


def rows():
    x = torch.randn(24, 4, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, (x.sum(1) > 0).long())


class Faulty(Task):
    class Options(Task.Options):
        fault: str = ""

    def model(self):
        return nn.Linear(4, 2)

    def train_data(self, data):
        self.bad = bool(data.options["bad"])
        return rows()

    def eval_data(self, data):
        self.bad = bool(data.options["bad"])
        return rows()

    def central_data(self):
        return rows()

    def loss(self, model, batch):
        if model.training and self.bad and self.options.fault == "hang":
            time.sleep(10_000)
        return super().loss(model, batch)

    def evaluate(self, model, batch):
        if not hasattr(self, "bad"):  # on the coordinator
            if self.options.fault == "central-hang":
                time.sleep(10_000)
            return super().evaluate(model, batch)
        if self.bad and self.options.fault == "raises":
            raise ValueError("only one class present in y_true")
        if self.bad and self.options.fault == "evaluate-hang":
            time.sleep(10_000)
        return {**super().evaluate(model, batch), "auc": Stat(math.nan if self.bad else 1.0, 2.0)}
"""


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder: Path = tmp_path_factory.mktemp("faulty")
    (folder / "faulty.py").write_text(TASK)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    with Federation(folder / "federation", nodes=2, env={"PYTHONPATH": path}) as made:
        made.start_coordinator(options=["--allow-paths"])
        made.join()
        for index in range(2):
            settings = made.node_dir(index) / "node.toml"
            bad = json.dumps(index == 0)
            settings.write_text(
                f'[policy]\nallow_paths = ["faulty:Faulty"]\n[limits]\nstall_s = 4\n[data.options]\nbad = {bad}\n'
            )
            made.start_node(index)
        made.wait_connected(2)
        yield made


def run_of(federation: Federation, fault: str, rounds: int = 1) -> str:
    local = '[data]\npartition = "local"'
    text = spec(fault, task="faulty:Faulty", options=f'fault = "{fault}"', rounds=rounds, min_nodes=2, extra=local)
    return federation.submit(text)


def declined(federation: Federation, run: str) -> str:
    """Why a node declined the first round; empty: none has."""
    if not federation.rounds(run):
        return ""
    updates = federation.admin.round(run, 1)["updates"]
    return next((str(u["reason"]) for u in updates if u["verdict"] == "declined"), "")


def test_a_training_that_hangs_is_declined_with_the_place_and_the_next_run_is_clean(federation: Federation) -> None:
    hung = run_of(federation, "hang")
    federation.until(lambda: bool(declined(federation, hung)), 60, "the node with the hung job did not decline")
    reason = declined(federation, hung)
    assert "worker-stalled: 'train' made no step for 4 s" in reason
    assert "faulty.py:" in reason
    federation.admin.stop_run(hung)
    clean = run_of(federation, "none")
    assert federation.wait(clean)["state"] == "completed"
    assert {u["verdict"] for u in federation.admin.round(clean, 1)["updates"]} == {"accepted"}


@pytest.mark.parametrize(
    ("fault", "reason"), [("raises", "ValueError: only one class"), ("evaluate-hang", "made no step for 4 s")]
)
def test_an_evaluation_costs_metrics_only(federation: Federation, fault: str, reason: str) -> None:
    run = run_of(federation, fault, rounds=2)
    shown = federation.wait(run)
    assert shown["state"] == "completed"
    for number in (1, 2):
        updates = federation.admin.round(run, number)["updates"]
        assert [(u["node"], u["verdict"]) for u in updates] == [("n0", "accepted"), ("n1", "accepted")]
    metrics = {u["node"]: u["metrics"] for u in federation.admin.round(run, 2)["updates"]}
    assert reason in metrics["n0"]["evaluation/evaluation"]
    assert shown["metrics"]["nodes/auc"] == 0.5
    assert reason in shown["missing"]["nodes/evaluation"]
