"""Policies that hold updates (FedBuff, BASGD), and FedAsync, by their formulas."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue
from torch import Tensor

from covey.aggregation.asynchronous.basgd import BASGD
from covey.aggregation.asynchronous.buffered import Buffered
from covey.aggregation.asynchronous.holding import Combined
from covey.aggregation.asynchronous.staleness_mean import StalenessMean
from covey.aggregation.contract import AggregationContext
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.mean import Mean
from covey.errors import PluginError, SpecError
from covey.testing.policies import PolicyRun
from covey.vectors import TensorVector

D = 30


def vectors(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed))


def dense(run: PolicyRun, node: str, vector: Tensor) -> Tensor | None:
    """The step that a delivery makes, if it makes one."""
    before = run.newest
    decision = run.deliver(node, vector)
    return (run.newest - before) / run.rate if decision.step is not None else None


# -- FedAsync


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.floats(0.05, 1))
@settings(deadline=None, max_examples=30)
def test_staleness_mean_is_fedasync(order: list[int], alpha: float) -> None:
    run = PolicyRun(StalenessMean({"alpha": alpha}), torch.zeros(D), 5, rate=1.0)
    model, bases = torch.zeros(D).double(), dict.fromkeys(range(5), 0)
    for t, (i, sent) in enumerate(zip(order, vectors(len(order)), strict=True)):
        share = alpha * (1 + t - bases[i]) ** -0.5
        model = (1 - share) * model + share * sent.double()
        run.deliver(run.roster[i], sent - run.newest)
        bases[i] = t + 1
        torch.testing.assert_close(run.newest.double(), model, rtol=1e-4, atol=1e-5)


def test_staleness_mean_follows_one_liar_anywhere() -> None:
    run = PolicyRun(StalenessMean(), torch.zeros(D), 3, rate=1.0)
    for node in run.roster:
        run.deliver(node, torch.full((D,), -1e6) if node == "node-2" else torch.zeros(D))
    assert run.newest.max() < -1e5


# -- FedBuff


def test_fedbuff_with_k_of_n_and_no_staleness_is_the_mean_to_the_bit() -> None:
    rows = vectors(6)
    run = PolicyRun(Buffered({"k": 6}), torch.zeros(D), 6)
    steps = [run.deliver(f"node-{i}", rows[i]).step for i in (3, 0, 5, 1, 4, 2)]
    assert steps[:-1] == [None] * 5
    assert steps[-1] is not None
    mean = Mean().aggregate(UpdateMatrix.of(rows), {}, AggregationContext(1, 0)).direction
    assert torch.equal(steps[-1].direction.dense(), mean.dense())
    torch.testing.assert_close(mean.dense(), rows.mean(0))


def test_fedbuff_scales_by_the_root_of_staleness_and_divides_by_k() -> None:
    rows = vectors(5)
    run = PolicyRun(Buffered({"k": 2}), torch.zeros(D), 3, rate=1.0)
    run.deliver("node-0", rows[0])
    run.deliver("node-1", rows[1])
    run.deliver("node-1", rows[2])
    step = dense(run, "node-2", rows[3])
    assert step is not None
    torch.testing.assert_close(step, (rows[2] + 2**-0.5 * rows[3]) / 2, rtol=1e-5, atol=1e-6)


def test_a_robust_rule_inside_keeps_a_liar_out_and_says_so() -> None:
    rows = 1 + 0.1 * vectors(5)
    run = PolicyRun(Buffered({"k": 5, "rule": {"name": "krum", "options": {"f": 1}}}), torch.zeros(D), 5, rate=1.0)
    for i in range(4):
        run.deliver(f"node-{i}", -1e3 * rows[i] if i == 2 else rows[i])
    decision = run.deliver("node-4", rows[4])
    verdicts = {v.node: v for v in decision.verdicts}
    assert verdicts["node-2"].verdict == "rejected"
    assert verdicts["node-2"].reason
    assert sum(v.verdict == "accepted" for v in verdicts.values()) == 1
    assert decision.step is not None
    assert decision.step.shares[3] == 0
    torch.testing.assert_close(run.newest, torch.ones(D), rtol=0.5, atol=0.5)


def test_weights_follow_the_runs_policy() -> None:
    rows = vectors(2)
    run = PolicyRun(Buffered({"k": 2}), torch.zeros(D), 2, rate=1.0)
    run.deliver("node-0", rows[0], weight=30)
    run.deliver("node-1", rows[1], weight=10)
    torch.testing.assert_close(run.newest, 0.75 * rows[0] + 0.25 * rows[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 4, "rule": {"name": "krum", "options": {"f": 1}}}, "'krum' needs at least 5 updates, and gets 4"),
        ({"rule": {"name": "krum", "options": {"g": 1}}}, r"aggregation\.options\.rule\.options\.g: unknown key"),
        ({"rule": {"name": "centered-clip"}}, "'centered-clip' keeps a state between rounds"),
        ({"rule": {"name": "fltrust"}}, "'fltrust' needs trusted data"),
        ({"k": 0}, r"options.k: .*greater than or equal to 1"),
        ({"rule": {"nam": "mean"}}, "options.rule.nam: unknown key; known keys: name, options"),
    ],
)
def test_wrong_inner_rules_are_refused(options: Mapping[str, JsonValue], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Buffered(options)


def test_an_inner_rule_that_is_not_installed_is_named() -> None:
    with pytest.raises(PluginError, match="no aggregator named 'kram'"):
        Buffered({"rule": {"name": "kram"}})


def test_fedbuff_waits_for_another_update_in_place_of_one_that_was_dropped() -> None:
    rows = vectors(4)
    run = PolicyRun(Buffered({"k": 3}), torch.zeros(D), 4, rate=1.0)
    run.deliver("node-0", -1e6 * rows[0])
    run.deliver("node-1", rows[1])
    run.drop({1})
    assert run.deliver("node-2", rows[2]).step is None
    decision = run.deliver("node-3", rows[3])
    assert [v.number for v in decision.verdicts] == [4, 2, 3]
    torch.testing.assert_close(run.newest, rows[1:].mean(0))


# -- BASGD


def test_basgd_by_hand() -> None:
    # Five nodes, three buffers: nodes 0 and 3 share the first, 1 and 4 the second; 2 has the third alone.
    rows = vectors(6)
    run = PolicyRun(BASGD({"buffers": 3}), torch.zeros(D), 5, rate=1.0)
    held = [run.deliver(f"node-{i}", rows[i]).verdicts for i in (0, 3, 1, 4)]
    assert [[v.verdict for v in verdicts] for verdicts in held] == [["held"]] * 4
    assert [verdicts[0].numbers["filled"] for verdicts in held] == [1, 1, 2, 2]
    decision = run.deliver("node-2", rows[2])
    means = torch.stack([(rows[0] + rows[3]) / 2, (rows[1] + rows[4]) / 2, rows[2]])
    torch.testing.assert_close(run.newest, means.median(0).values)
    assert {v.node: v.share for v in decision.verdicts} == {
        "node-2": pytest.approx(1 / 3),
        **{f"node-{i}": pytest.approx(1 / 6) for i in (0, 1, 3, 4)},
    }
    assert run.policy.pinned(run.state).updates == ()


def test_basgd_uses_a_nodes_newest_update_only() -> None:
    rows = vectors(3)
    run = PolicyRun(BASGD({"buffers": 2, "rule": {"name": "mean"}}), torch.zeros(D), 2, rate=1.0)
    run.deliver("node-0", rows[0])
    decision = run.deliver("node-0", rows[1])
    assert [(v.number, v.verdict) for v in decision.verdicts] == [(2, "held"), (1, "rejected")]
    run.deliver("node-1", rows[2])
    torch.testing.assert_close(run.newest, (rows[1] + rows[2]) / 2)


def test_basgd_empties_the_buffer_of_an_update_that_was_dropped() -> None:
    rows = vectors(4)
    run = PolicyRun(BASGD({"buffers": 2, "rule": {"name": "mean"}}), torch.zeros(D), 4, rate=1.0)
    run.deliver("node-0", -1e6 * rows[0])
    run.deliver("node-2", rows[2])
    run.drop({1})
    decision = run.deliver("node-1", rows[1])
    assert {v.node: v.share for v in decision.verdicts} == {"node-1": 0.5, "node-2": 0.5}
    torch.testing.assert_close(run.newest, (rows[1] + rows[2]) / 2)
    run.deliver("node-0", rows[0])
    run.drop({4})
    assert run.deliver("node-3", rows[3]).verdicts[0].numbers["filled"] == 1


def test_q_liars_move_basgd_no_further_than_the_honest_means() -> None:
    generator = torch.Generator().manual_seed(3)
    run = PolicyRun(BASGD({"buffers": 7}), torch.zeros(D), 14, rate=1.0)
    for _ in range(400):
        i = int(torch.randint(14, (), generator=generator))
        liar = i in (1, 8, 5)  # two in one buffer, one in another: two of seven means are spoilt
        before, vector = run.newest, torch.randn(D, generator=generator).abs()
        decision = run.deliver(run.roster[i], -1e6 * vector if liar else vector)
        if decision.step is not None:
            assert (run.newest - before).min() >= 0
    assert run.version > 10


def test_basgd_deals_nodes_anew_when_the_nodes_of_a_buffer_are_gone() -> None:
    rows = vectors(40)
    run = PolicyRun(BASGD({"buffers": 3, "patience": 8}), torch.zeros(D), 6, rate=1.0)
    versions = []
    for t in range(24):
        i = (0, 1, 3, 4)[t % 4]  # nodes 2 and 5, those of the third buffer, never come
        decision = run.deliver(f"node-{i}", rows[t])
        versions.append(run.version)
        if decision.step is not None:
            buffers = {v.node: v.numbers["buffer"] for v in decision.verdicts if "buffer" in v.numbers}
            assert buffers == {"node-0": 0, "node-1": 1, "node-3": 2, "node-4": 0}
    assert versions == [0] * 7 + [1] * 8 + [2] * 8 + [3]


def test_a_combined_row_is_the_weighted_sum() -> None:
    rows = vectors(3)
    combined = Combined([(TensorVector(row), w) for row, w in zip(rows, (0.5, -2.0, 3.0), strict=True)])
    wanted = 0.5 * rows[0] - 2 * rows[1] + 3 * rows[2]
    torch.testing.assert_close(combined.read(slice(0, D)), wanted)
    torch.testing.assert_close(combined.read(slice(4, 9)), wanted[4:9])
