from __future__ import annotations

import pytest
import torch

from covey.aggregation.contract import AggregationContext, Aggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.mean import Mean
from covey.aggregation.server_optimizers import SGD
from covey.errors import RunFailed
from covey.testing.aggregators import AggregatorConformance

ROUND = AggregationContext(round=1, seed=0)


class TestMeanConforms(AggregatorConformance):
    def make(self) -> Aggregator:
        return Mean()


def test_equals_the_naive_weighted_sum() -> None:
    rows = torch.randn(5, 300, generator=torch.Generator().manual_seed(1))
    examples = [10.0, 40.0, 5.0, 25.0, 20.0]
    naive = [sum(w * float(rows[i, j]) for i, w in enumerate(examples)) / sum(examples) for j in range(300)]
    aggregate = Mean().aggregate(UpdateMatrix.of(rows, weights=examples), {}, ROUND)
    torch.testing.assert_close(aggregate.direction.dense(), torch.tensor(naive), rtol=1e-5, atol=1e-6)
    assert [v.share for v in aggregate.verdicts] == pytest.approx([w / 100 for w in examples])


def test_with_sgd_at_learning_rate_one_it_is_federated_averaging_exactly() -> None:
    # Multiples of 1/1024 and shares of quarters: every intermediate value is exact in float32.
    generator = torch.Generator().manual_seed(2)
    base = torch.randint(-4096, 4096, (500,), generator=generator) / 1024
    local = torch.randint(-4096, 4096, (4, 500), generator=generator) / 1024
    shares = [0.25, 0.5, 0.125, 0.125]
    averaged = (torch.tensor(shares).double()[:, None] * local.double()).sum(0).float()
    direction = Mean().aggregate(UpdateMatrix.of(local - base, weights=shares), {}, ROUND).direction
    sgd = SGD()
    sgd.begin(1)
    assert torch.equal(sgd.step_block(base, direction.dense(), {}, 1), averaged)


def test_weights_of_zero_are_refused() -> None:
    with pytest.raises(RunFailed, match="sum to zero"):
        Mean().aggregate(UpdateMatrix.of(torch.ones(2, 3), weights=[0.0, 0.0]), {}, ROUND)
