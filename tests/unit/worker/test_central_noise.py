"""The coordinator's noise on the mean of clipped updates: how much, from where, and what one node can move."""

from __future__ import annotations

import pytest
import torch

from covey.aggregation.contract import Aggregate, AggregationContext
from covey.aggregation.matrix import Row, UpdateMatrix
from covey.spec import PrivacySection, RoundsSpec, TaskSection
from covey.vectors import TensorVector
from covey.worker.execute.from_spec import load_aggregator
from covey.worker.execute.steps.central_noise import noised

D = 20_000


def run(**changes):
    privacy = PrivacySection.model_validate({"unit": "node", "clip": 2.0, "noise": 1.5, **changes})
    return RoundsSpec(name="r", seed=4, task=TaskSection(name="digits"), privacy=privacy)


def added(share: float, sent: int, number: int = 1, **changes) -> torch.Tensor:
    ones = Aggregate(TensorVector(torch.ones(D)), ())
    return noised(ones, share, sent, run(**changes), number).direction.read(slice(0, D)).clone()


@pytest.mark.parametrize(("share", "sent"), [(0.25, 4), (0.25, 5), (0.5, 2)])
def test_noise_is_z_c_over_the_number_of_nodes_that_sent_and_what_cannot_be_read_is_zero(share, sent):
    found = added(share, sent)
    assert found.mean().item() == pytest.approx(1 / share / sent, abs=0.05)
    assert found.std().item() == pytest.approx(1.5 * 2.0 / sent, rel=0.05)


def test_noise_is_secret_unless_the_run_is_to_be_reproducible():
    assert not torch.equal(added(0.5, 2), added(0.5, 2))
    assert torch.equal(added(0.5, 2, reproducible=True), added(0.5, 2, reproducible=True))
    assert not torch.equal(added(0.5, 2, reproducible=True), added(0.5, 2, 2, reproducible=True))


def test_each_update_is_clipped_before_the_mean():
    rule = load_aggregator(run())
    rows = {"a": torch.full((4,), 100.0), "b": torch.zeros(4)}
    matrix = UpdateMatrix([Row(node, 0.5, TensorVector(values)) for node, values in rows.items()])
    mean = rule.aggregate(matrix, {}, AggregationContext(1, 4)).direction.read(slice(0, 4))
    assert mean.norm().item() == pytest.approx(2.0 / 2, rel=1e-5)


def test_a_run_without_such_privacy_gets_none():
    with pytest.raises(ValueError, match="no noise"):
        noised(Aggregate(TensorVector(torch.ones(4)), ()), 1.0, 1, run(unit="example"), 1)
