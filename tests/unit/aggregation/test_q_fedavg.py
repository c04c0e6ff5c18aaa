from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.mean import Mean
from covey.aggregation.q_fedavg import QFedAvg
from covey.errors import RunFailed, SpecError
from covey.testing.aggregators import AggregatorConformance

ROUND = AggregationContext(round=1, seed=0)


class TestQFedAvgConforms(AggregatorConformance):
    keeps_identical = False  # the step is shorter with q > 0

    def make(self) -> Aggregator:
        return QFedAvg({"q": 0.5})

    def context_of(self, updates: UpdateMatrix) -> AggregationContext:
        return replace(self.context, losses={node: 0.1 + len(node) + int(node[-1]) for node in updates.nodes})


def aggregate(rows: UpdateMatrix, losses: list[float], **options: float) -> Aggregate:
    context = replace(ROUND, losses=dict(zip(rows.nodes, losses, strict=True)))
    return QFedAvg(options).aggregate(rows, {}, context)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 7), st.sampled_from([0.0, 0.2, 1.0, 5.0]), st.floats(1e-3, 10.0))
def test_equals_the_algorithm_of_the_paper(seed: int, n: int, q: float, learning_rate: float) -> None:
    # Step by step on models, as the paper has it: a model, local models, Delta_k, h_k, the next model.
    generator = torch.Generator().manual_seed(seed)
    model = torch.randn(20, generator=generator, dtype=torch.float64)
    rows = torch.randn(n, 20, generator=generator) * torch.rand(n, 1, generator=generator)
    losses = (torch.rand(n, generator=generator, dtype=torch.float64) * 4 + 0.01).tolist()
    lipschitz, step, total = 1 / learning_rate, torch.zeros(20, dtype=torch.float64), 0.0
    for row, loss in zip(rows.double(), losses, strict=True):
        local = model + row
        gradient = lipschitz * (model - local)
        step += loss**q * gradient
        total += q * loss ** (q - 1) * float(gradient @ gradient) + lipschitz * loss**q
    following = model - step / total
    found = aggregate(UpdateMatrix.of(rows), losses, q=q, learning_rate=learning_rate).direction.dense()
    torch.testing.assert_close(model + found.double(), following, rtol=1e-5, atol=1e-6)


def test_shares_stand_for_how_often_nodes_would_be_drawn() -> None:
    # A node of twice the share counts like two nodes with the same update and loss.
    rows = torch.randn(3, 10, generator=torch.Generator().manual_seed(1))
    twice = UpdateMatrix.of(rows[[0, 0, 1, 2]])
    weighted = UpdateMatrix.of(rows, weights=[0.5, 0.25, 0.25])
    expected = aggregate(twice, [2.0, 2.0, 1.0, 0.5], q=1.5).direction.dense()
    torch.testing.assert_close(aggregate(weighted, [2.0, 1.0, 0.5], q=1.5).direction.dense(), expected)


def test_without_fairness_it_is_the_weighted_mean() -> None:
    rows = UpdateMatrix.of(torch.randn(4, 10), weights=[0.4, 0.3, 0.2, 0.1])
    found = aggregate(rows, [5.0, 0.1, 1.0, 0.0], q=0)
    torch.testing.assert_close(found.direction.dense(), Mean().aggregate(rows, {}, ROUND).direction.dense())
    assert [v.share for v in found.verdicts] == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_the_more_fairness_the_more_the_highest_loss_counts() -> None:
    rows = UpdateMatrix.of(1e-3 * torch.eye(3))
    parts = []
    for q in (0, 0.5, 1, 4):
        weights = [v.share for v in aggregate(rows, [1.0, 2.0, 4.0], q=q).verdicts]
        parts.append(weights[2] / sum(weights))
    assert parts == sorted(parts)
    assert parts[0] == pytest.approx(1 / 3)
    assert parts[2] == pytest.approx(4 / 7, rel=1e-3)


def test_losses_of_any_size_give_numbers() -> None:
    rows = UpdateMatrix.of(torch.randn(3, 10))
    for losses in ([0.0, 0.0, 0.0], [1e300, 1.0, 0.0], [1e-300, 1e-12, 5.0]):
        found = aggregate(rows, losses, q=5)
        assert found.direction.dense().isfinite().all()
        assert all(0 <= v.share <= 1 for v in found.verdicts)


def test_an_update_without_a_usable_loss_is_rejected() -> None:
    rows = UpdateMatrix.of(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    losses = {"node-0": 1.0, "node-1": -1.0, "node-2": float("nan")}
    result = QFedAvg({"q": 0}).aggregate(rows, {}, replace(ROUND, losses=losses))
    assert result.direction.dense().tolist() == [1.0]
    assert [v.accepted for v in result.verdicts] == [True, False, False, False]
    assert all("did not report" in v.reason for v in result.verdicts[1:])
    assert result.verdicts[0].numbers == pytest.approx({"loss": 1.0, "norm": 1.0})
    assert "loss" not in result.verdicts[3].numbers


def test_a_round_without_any_loss_or_weight_is_refused() -> None:
    with pytest.raises(RunFailed, match="training losses"):
        QFedAvg().aggregate(UpdateMatrix.of(torch.ones(2, 3)), {}, ROUND)
    with pytest.raises(RunFailed, match="sum to zero"):
        aggregate(UpdateMatrix.of(torch.ones(2, 3), weights=[0.0, 0.0]), [1.0, 1.0])
    with pytest.raises(SpecError, match=r"options\.q"):
        QFedAvg({"q": -1})
