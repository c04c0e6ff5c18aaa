from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.heterogeneity import task as task_module
from benchmarks.heterogeneity.report import report
from benchmarks.heterogeneity.runs import ALPHAS, FEDAVG, FEDGEN, METHODS, cases, setting, spec_of
from benchmarks.heterogeneity.task import NODES, HeterogeneousMnist, deal
from benchmarks.methods.cases import Case
from benchmarks.methods.data import Digits


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up images in the place of MNIST's, 200 of each label."""
    labels = torch.arange(10).repeat(200)
    monkeypatch.setattr(task_module, "everything", lambda part: Digits(torch.rand(2000, 784), labels))
    deal.cache_clear()


@pytest.mark.usefixtures("few")
def test_every_node_gets_its_share_and_is_tested_on_its_labels() -> None:
    rows, owners = deal(1.0, 3)
    assert len(rows) == len(set(rows.tolist())) == len(owners)
    held = np.bincount(owners, minlength=NODES)
    assert held.min() >= task_module.LEAST
    labels = torch.arange(10).repeat(200)
    assert np.bincount(labels[rows].numpy()).tolist() == [50] * 10, "at most a twentieth of half of all, of each label"
    task = HeterogeneousMnist({"alpha": 1.0, "seed": 3})
    x, y, tested = task.central_data().tensors
    for label in range(10):
        holders = len(set(owners[labels[rows].numpy() == label].tolist()))
        assert tested[y == label].sum() == holders * (200 // NODES)
    model = task.model().eval()
    stats = task.evaluate(model, (x, y, tested))
    right = model(x).argmax(1) == y
    assert (stats["accuracy"].total, stats["accuracy"].count) == (right.sum().item(), 2000)
    of_clients = stats["client_accuracy"]
    assert (of_clients.total, of_clients.count) == (right[tested].sum().item(), tested.sum().item())
    deal.cache_clear()


def test_runs_are_paired_and_every_method_can_be_specified() -> None:
    assert len(cases()) == len(set(cases())) == 5 * (len(METHODS) + 4)
    specs = [spec_of(case, 20) for case in cases() if case.seed == 0]
    assert {spec.seed for spec in specs} == {0}
    assert len({spec.training.learning_rate for spec in specs}) == 1


def test_the_claim_is_met_only_where_the_interval_excludes_zero() -> None:
    where = setting(0.1)

    def outcomes(gains: list[float]) -> dict[Case, dict[str, float]]:
        scores = {"accuracy": 80.0, "ensemble/accuracy": 81.0, "ensemble/client_accuracy": 86.0}
        made_up = {Case(where, FEDAVG, seed): {**scores, "client_accuracy": 85.0} for seed in range(len(gains))}
        return made_up | {
            Case(where, FEDGEN, seed): {"accuracy": 82.0, "client_accuracy": 85.0 + gain}
            for seed, gain in enumerate(gains)
        }

    assert "met" in report(outcomes([2.0, 2.5, 3.0]))[-1].split("|")[-2].strip().split()
    for gains in ([1.0, 1.1, 0.9], [-3.0, 9.0, 3.0], [5.0]):
        assert "not met" in report(outcomes(gains))[-1]
    text = "\n".join(report(outcomes([2.0, 2.5, 3.0])))
    assert "| FedEnsemble | 86.0 ± 0.0 | 90.78 ± 0.39 | 81.0 ± 0.0 | 3 |" in text
    assert report({}) == []
    assert set(ALPHAS) == {0.1, 0.05, 1.0}
