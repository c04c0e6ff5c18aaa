from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from covey.aggregation import votes
from covey.aggregation.contract import AggregationContext, Aggregator
from covey.aggregation.majority_vote import CREDIT, FEEDBACK, MajorityVote
from covey.aggregation.matrix import Row, UpdateMatrix
from covey.errors import LayoutError, RunFailed, SpecError
from covey.testing.aggregators import AggregatorConformance
from covey.vectors import PackedSigns

ROSTER = tuple(f"node-{i}" for i in range(40))
ROUND = AggregationContext(round=1, seed=7, roster=ROSTER)


class TestMajorityVoteConforms(AggregatorConformance):
    keeps_identical = False

    def make(self) -> Aggregator:
        return MajorityVote({"f": 2})


class TestRandomTiesConform(AggregatorConformance):
    keeps_identical = False

    def make(self) -> Aggregator:
        return MajorityVote({"f": 1, "tie": "random"})


class TestFeedbackConforms(AggregatorConformance):
    keeps_identical = False

    def make(self) -> Aggregator:
        return MajorityVote({"error_feedback": "server", "rho": 0.5})


class TestCreditConforms(AggregatorConformance):
    keeps_identical = False
    context = ROUND

    def make(self) -> Aggregator:
        return MajorityVote({"credit": True, "tie": "random", "error_feedback": "server"})

    def test_state_has_the_names_and_the_form_that_the_rule_says(self) -> None:
        updates = self.updates(self.make())
        kept = self.aggregate(updates).state
        assert (kept[FEEDBACK].d, kept[CREDIT].d) == (updates.d, len(ROSTER))


def signs(rows: torch.Tensor) -> torch.Tensor:
    return torch.where(rows >= 0, 1.0, -1.0)


def some_rows(seed: int, n: int, d: int) -> torch.Tensor:
    return torch.randint(-2, 3, (n, d), generator=torch.Generator().manual_seed(seed)).float()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 200))
def test_equals_the_naive_formula(seed: int, n: int, d: int) -> None:
    rows = some_rows(seed, n, d)
    expected = signs(signs(rows).sum(0))
    result = MajorityVote().aggregate(UpdateMatrix.of(rows), {}, ROUND)
    assert isinstance(result.direction, PackedSigns)
    assert torch.equal(result.direction.dense(), expected)
    agreement = (signs(rows) == expected).double().mean(1).tolist()
    assert [verdict.numbers["agreement"] for verdict in result.verdicts] == pytest.approx(agreement)
    assert all(verdict.accepted and verdict.share == pytest.approx(1 / n) for verdict in result.verdicts)


class SignsOnly(PackedSigns):
    """Packed signs that cannot be unpacked."""

    def decode(self, columns: slice, out: torch.Tensor) -> None:
        raise AssertionError("packed bits stay packed")


@pytest.mark.parametrize("options", [{}, {"tie": "random"}, {"error_feedback": "server"}, {"credit": True}])
def test_packed_rows_give_the_same_and_are_never_decoded(options: dict[str, JsonValue]) -> None:
    d, roster = 1003, ROSTER[:6]
    rows = some_rows(5, 6, d)
    packed = [torch.from_numpy(np.packbits((row >= 0).numpy(), bitorder="little")) for row in rows]
    signs_only = UpdateMatrix([Row(node, 1 / 6, SignsOnly(b, d)) for node, b in zip(roster, packed, strict=True)])
    rule = MajorityVote(options)
    first = rule.aggregate(signs_only, {}, ROUND)
    second = rule.aggregate(UpdateMatrix.of(rows), {}, ROUND)
    assert torch.equal(first.direction.dense(), second.direction.dense())
    assert first.verdicts == second.verdicts
    for name in rule.state_names:
        assert torch.equal(first.state[name].dense(), second.state[name].dense())


def test_zero_counts_as_positive() -> None:
    rows = torch.tensor([[0.0, -0.0, -1.0], [0.0, 1.0, -1.0], [-3.0, -1.0, 0.0]])
    assert MajorityVote().aggregate(UpdateMatrix.of(rows), {}, ROUND).direction.dense().tolist() == [1, 1, -1]


def test_random_ties_are_fair_and_drawn_anew_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    d = 20_000
    rows = torch.ones(4, d)
    rows[:2] = -1
    rows[2, : d // 2] = -1
    matrix, rule = UpdateMatrix.of(rows), MajorityVote({"tie": "random"})
    first = rule.aggregate(matrix, {}, ROUND).direction.dense()
    again = rule.aggregate(matrix, {}, replace(ROUND, round=2)).direction.dense()
    other = rule.aggregate(matrix, {}, replace(ROUND, seed=8)).direction.dense()
    assert (first[: d // 2] == -1).all()
    tied = first[d // 2 :]
    for found in (tied.mean(), (tied * again[d // 2 :]).mean(), (tied * other[d // 2 :]).mean()):
        # Five standard deviations.
        assert abs(float(found)) < 5 / len(tied) ** 0.5
    monkeypatch.setattr(votes, "VOTE_COLUMNS", 192)
    assert torch.equal(rule.aggregate(matrix, {}, ROUND).direction.dense(), first)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 150), st.booleans())
def test_error_feedback_loses_nothing(seed: int, n: int, d: int, random: bool) -> None:
    # sum_t u_t / M + e_T = sum_t mean_m q_tm, and |e| stays bounded where the plain vote's would grow.
    rule = MajorityVote({"error_feedback": "server", "tie": "random" if random else "positive"})
    given_out, came_in = torch.zeros(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64)
    state: dict[str, torch.Tensor] = {}
    for number in range(1, 8):
        rows = some_rows(seed + number, n, d)
        result = rule.aggregate(UpdateMatrix.of(rows), state, replace(ROUND, round=number))
        before = state.get(FEEDBACK, torch.zeros(d))
        direction = result.direction.dense()
        value = signs(rows).mean(0) + before
        sure = value.abs() > 1e-6
        assert torch.equal(direction[sure], signs(value)[sure])
        given_out += direction.double() / n
        came_in += signs(rows).double().mean(0)
        state = {FEEDBACK: result.state[FEEDBACK].dense(37)}
        torch.testing.assert_close(given_out + state[FEEDBACK], came_in, rtol=0, atol=1e-5)


def test_rho_keeps_a_part_of_the_old_error() -> None:
    rows, error = some_rows(3, 5, 130), torch.linspace(-1, 1, 130)
    rule = MajorityVote({"error_feedback": "server", "rho": 0.25})
    result = rule.aggregate(UpdateMatrix.of(rows), {FEEDBACK: error}, ROUND)
    mean, u = signs(rows).mean(0), result.direction.dense()
    torch.testing.assert_close(u, signs(mean + error))
    torch.testing.assert_close(result.state[FEEDBACK].dense(), 0.75 * (mean - u / 5) + 0.25 * error)


class TestCreditOfAgreementConforms(TestCreditConforms):
    def make(self) -> Aggregator:
        return MajorityVote({"credit": "agreement", "tie": "random", "error_feedback": "server"})


@pytest.mark.parametrize("credit", [True, "agreement"])
def test_credit_follows_agreement_and_weighs_votes(credit: JsonValue) -> None:
    # Three who disagree with a reliable pair outvote it at first; later they do not.
    rule, roster = MajorityVote({"credit": credit}), ("a", "b", "x", "y", "z", "late")
    context = replace(ROUND, roster=roster)
    good = torch.ones(2, 100)
    state: dict[str, torch.Tensor] = {}
    for number in range(1, 6):
        noisy = torch.where(torch.rand(3, 100, generator=torch.Generator().manual_seed(number)) < 0.5, 1.0, -1.0)
        rows = UpdateMatrix.of(torch.cat([good, noisy]), nodes=roster[:5])
        before = state.get(CREDIT, torch.ones(6))
        result = rule.aggregate(rows, state, context)
        state = {CREDIT: result.state[CREDIT].dense()}
        agreement = torch.tensor([verdict.numbers["agreement"] for verdict in result.verdicts])
        earned = agreement if credit == "agreement" else 2 * agreement - 1
        torch.testing.assert_close(state[CREDIT][:5], 0.6 * before[:5] + earned, rtol=0, atol=1 / 1024)
        assert state[CREDIT][5] == 1.0
        shares = [verdict.share for verdict in result.verdicts]
        assert shares == pytest.approx((before[:5].clamp(min=0) / before[:5].abs().sum()).tolist())
        u = torch.einsum("m,mj->j", before[:5], torch.cat([good, noisy]))
        assert torch.equal(result.direction.dense(), signs(u))
    credits = torch.tensor([1.0, 1.0, 0.5, 0.5, 0.5, 1.0])
    split = UpdateMatrix.of(torch.tensor([[1.0], [1.0], [-1.0], [-1.0], [-1.0]]), nodes=roster[:5])
    assert rule.aggregate(split, {CREDIT: credits}, context).direction.dense().item() == 1.0
    assert rule.aggregate(split, {}, context).direction.dense().item() == -1.0


def test_a_growing_roster_keeps_credits_and_gives_newcomers_the_first() -> None:
    rule, rows = MajorityVote({"credit": True}), torch.tensor([[1.0], [1.0], [-1.0]])
    first = rule.aggregate(UpdateMatrix.of(rows, nodes=["a", "b", "c"]), {}, replace(ROUND, roster=("a", "b", "c")))
    kept = {CREDIT: first.state[CREDIT].dense()}
    assert kept[CREDIT].tolist() == pytest.approx([1.6, 1.6, -0.4], abs=1 / 1024)
    grown = replace(ROUND, roster=("a", "b", "c", "d"))
    second = rule.aggregate(UpdateMatrix.of(rows[:2], nodes=["b", "d"]), kept, grown)
    assert second.state[CREDIT].dense().tolist() == pytest.approx([1.6, 1.96, -0.4, 1.6], abs=2 / 1024)
    nobody = {CREDIT: torch.zeros(4)}
    alone = rule.aggregate(UpdateMatrix.of(rows[2:], nodes=["c"]), nobody, grown)
    assert (alone.direction.dense().item(), alone.verdicts[0].share) == (-1.0, 1.0)


def crowd(number: int, right: float, honest: int, random: int, opposite: int, d: int = 200) -> torch.Tensor:
    """Votes on signs that are all +1: honest ones are right with a probability, the last ones vote against them."""
    generator = torch.Generator().manual_seed(number)
    chances = [right] * honest + [0.5] * random
    votes = torch.bernoulli(torch.tensor(chances)[:, None].expand(-1, d), generator=generator) * 2 - 1
    return torch.cat([votes, -torch.ones(opposite, d)])


def right_signs(credit: JsonValue, honest: int, random: int, opposite: int) -> tuple[float, torch.Tensor]:
    """The share of right signs in the last 10 of 30 rounds, and the credits after them."""
    n = honest + random + opposite
    rule, context = MajorityVote({"credit": credit}), replace(ROUND, roster=ROSTER[:n])
    state: dict[str, torch.Tensor] = {}
    right = 0.0
    for number in range(1, 31):
        rows = UpdateMatrix.of(crowd(number, 0.7, honest, random, opposite), nodes=ROSTER[:n])
        result = rule.aggregate(rows, state, context)
        state = {name: vector.dense() for name, vector in result.state.items()}
        right += float((result.direction.dense() > 0).double().mean()) / 10 if number > 20 else 0
    return right, state[CREDIT]


def test_who_always_opposes_comes_to_have_a_negative_credit_and_who_votes_at_random_none() -> None:
    share, credits = right_signs(True, honest=5, random=2, opposite=2)
    assert (credits[:5] > 0.7).all()
    assert (credits[5:7].abs() < 0.7).all()
    assert (credits[7:] < -2).all()
    before, unsigned = right_signs("agreement", honest=5, random=2, opposite=2)
    assert (unsigned > 0).all()  # the liars too
    assert share > 0.99 > before + 0.1


def test_a_vote_of_negative_credit_counts_for_the_opposite_and_has_no_share() -> None:
    rule, context = MajorityVote({"credit": True, "error_feedback": "server"}), replace(ROUND, roster=ROSTER[:3])
    rows = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    result = rule.aggregate(UpdateMatrix.of(rows), {CREDIT: torch.tensor([1.0, 0.5, -2.0])}, context)
    assert result.direction.dense().tolist() == [1.0, 1.0]
    assert [verdict.share for verdict in result.verdicts] == pytest.approx([1 / 3.5, 0.5 / 3.5, 0])
    mean = torch.tensor([(1 + 0.5 + 2) / 3.5, (-1 + 0.5 + 2) / 3.5])
    torch.testing.assert_close(result.state[FEEDBACK].dense(), mean - 1 / 3)


def test_credit_needs_the_roster() -> None:
    with pytest.raises(RunFailed, match="'x' is not in it"):
        MajorityVote({"credit": True}).aggregate(UpdateMatrix.of(torch.ones(1, 2), nodes=["x"]), {}, ROUND)


def test_a_state_of_another_form_is_refused() -> None:
    rows = UpdateMatrix.of(torch.ones(3, 5))
    with pytest.raises(LayoutError, match="4 elements, the rows have 5"):
        MajorityVote({"error_feedback": "server"}).aggregate(rows, {FEEDBACK: torch.zeros(4)}, ROUND)
    with pytest.raises(LayoutError, match="credits of 41 nodes, and the roster has 40"):
        MajorityVote({"credit": True}).aggregate(rows, {CREDIT: torch.ones(41)}, ROUND)


def test_a_fully_credited_round_does_not_depend_on_the_order_of_rows() -> None:
    generator = torch.Generator().manual_seed(4)
    rows, credit = (
        torch.randn(30, 500, generator=generator),
        (torch.rand(40, generator=generator) * 2560).round() / 1024,
    )
    rule, matrix = MajorityVote({"credit": True}), UpdateMatrix.of(rows)
    first, second = (rule.aggregate(m, {CREDIT: credit}, ROUND) for m in (matrix, UpdateMatrix(matrix.rows[::-1])))
    assert torch.equal(first.direction.dense(), second.direction.dense())


@pytest.mark.parametrize(("b", "count"), [(1.0, 31), (4.0, 31), (1.0, 9)])
def test_a_wrong_vote_is_as_rare_as_its_bound(b: float, count: int) -> None:
    # sto-sign: +1 with probability 1/2 + g / 2b. Then P(sign differs from that of sum g) <= (1 - x^2)^(M / 2) with
    # x = |sum g| / (b M): Chernoff's bound with the inequality of arithmetic and geometric means.
    trials = 20_000
    gradients = torch.linspace(-0.7, 1.0, count)
    probability = (0.5 + gradients / (2 * b)).expand(trials, count)
    drawn = torch.bernoulli(probability, generator=torch.Generator().manual_seed(count)) * 2 - 1
    u = MajorityVote().aggregate(UpdateMatrix.of(drawn.T.contiguous()), {}, ROUND).direction.dense()
    x = float(gradients.sum().abs()) / (b * count)
    wrong = float((u < 0).double().mean())
    assert 0 < wrong <= (1 - x * x) ** (count / 2)
    # Exactly: the Poisson-binomial probability of at most M / 2 votes, to five standard deviations.
    ways = np.array([1.0])
    for p in probability[0].double().tolist():
        ways = np.convolve(ways, [1 - p, p])
    exact = float(ways[: count // 2 + 1].sum())
    assert wrong == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / trials))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 7))
def test_a_minority_cannot_turn_an_agreed_sign(seed: int, f: int) -> None:
    common = some_rows(seed, 1, 90)
    rows = torch.cat([common.repeat(f + 1, 1), -common.repeat(f, 1)])
    found = MajorityVote({"f": f}).aggregate(UpdateMatrix.of(rows), {}, ROUND).direction.dense()
    assert torch.equal(found, signs(common[0]))


def test_only_what_is_asked_for_is_kept() -> None:
    assert MajorityVote().state_names == ()
    assert MajorityVote({"error_feedback": "server"}).state_names == (FEEDBACK,)
    assert MajorityVote({"credit": True}).state_names == (CREDIT,)
    assert MajorityVote.votes


def test_wrong_options_are_refused() -> None:
    with pytest.raises(SpecError, match="rho has no meaning"):
        MajorityVote({"rho": 0.5})
    with pytest.raises(SpecError, match="tie"):
        MajorityVote({"tie": "negative"})
    with pytest.raises(RunFailed, match="at least 5 updates, the round has 4"):
        MajorityVote({"f": 2}).aggregate(UpdateMatrix.of(torch.ones(4, 2)), {}, ROUND)
