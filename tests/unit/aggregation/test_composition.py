from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from covey.aggregation.bucketing import Bucketing
from covey.aggregation.centered_clip import CenteredClip
from covey.aggregation.composition import Composed, MixedMatrix
from covey.aggregation.contract import AggregationContext, Aggregator, PreAggregator, Verdict
from covey.aggregation.fltrust import FLTrust
from covey.aggregation.geometric_median import GeometricMedian
from covey.aggregation.krum import Krum, MultiKrum
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.mean import Mean
from covey.aggregation.nearest_neighbour_mixing import NearestNeighbourMixing
from covey.aggregation.norm_clip import NormClip
from covey.errors import LayoutError, RunFailed, SpecError
from covey.layout import Layout, TensorSpec
from covey.testing.aggregators import AggregatorConformance, QuadraticRoot, RobustConformance

ROUND = AggregationContext(round=1, seed=5)


class Conformance(AggregatorConformance):
    # Each part has its own options, checked where it is made.
    test_refuses_unknown_options = None  # type: ignore[assignment]


class TestMixingBeforeKrumConforms(RobustConformance):
    test_refuses_unknown_options = None  # type: ignore[assignment]

    def make(self) -> Aggregator:
        return Composed([NearestNeighbourMixing({"f": 4})], Krum({"f": 4}))

    def kappa(self, n: int, f: int) -> float:
        return 8 * f / (n - f) * (6 * (1 + f / (n - 2 * f)) + 1)


class TestMixingBeforeGeometricMedianConforms(Conformance):
    def make(self) -> Aggregator:
        return Composed([NearestNeighbourMixing({"f": 2})], GeometricMedian())


class TestBucketingBeforeCenteredClipConforms(Conformance):
    permutation_invariant = False

    def make(self) -> Aggregator:
        return Composed([Bucketing({"s": 2})], CenteredClip({"tau": 1e3}))


class TestTwoBeforeNormClipConforms(Conformance):
    permutation_invariant = False

    def make(self) -> Aggregator:
        return Composed([Bucketing({"s": 2}), NearestNeighbourMixing({"f": 1})], NormClip())


class TestMixingBeforeFLTrustConforms(Conformance):
    keeps_identical = False

    def make(self) -> Aggregator:
        return Composed([NearestNeighbourMixing({"f": 1})], FLTrust())


def rows_of(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 8), st.integers(1, 70))
def test_a_mixed_matrix_is_the_product(seed: int, n: int, m: int, d: int) -> None:
    rows, mixing = rows_of(n, d, seed), torch.rand(m, n, dtype=torch.float64)
    matrix = MixedMatrix(UpdateMatrix.of(rows), mixing)
    made = UpdateMatrix.of((mixing @ rows.double()).float())
    vector, weights = rows_of(1, d, seed + 1)[0], torch.rand(m, dtype=torch.float64)

    def same(found: torch.Tensor, wanted: torch.Tensor) -> None:
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)

    assert (matrix.n, matrix.d) == (m, d)
    same(matrix.dense(), made.dense())
    same(matrix.gram(), made.gram())
    same(matrix.squared_norms(), made.squared_norms())
    same(matrix.products(vector), made.products(vector))
    same(matrix.row(m - 1), made.row(m - 1))
    same(matrix.weighted_sum(weights).dense(7), made.weighted_sum(weights).dense())
    wider = matrix.extended([vector])
    same(wider.gram(), made.extended([vector]).gram())
    same(wider.dense(), torch.cat([made.dense(), vector[None]]))


def test_slabs_of_any_width_and_place_are_mixed() -> None:
    rows, mixing = rows_of(4, 200_000), torch.rand(3, 4, dtype=torch.float64)
    matrix, exact = MixedMatrix(UpdateMatrix.of(rows), mixing), (mixing @ rows.double()).float()
    for columns in (slice(0, 200_000), slice(70_001, 170_003), slice(199_999, 200_000)):
        out = torch.empty(3, columns.stop - columns.start)
        matrix.fill(columns, out)
        torch.testing.assert_close(out, exact[:, columns], rtol=1e-5, atol=1e-5)
        memory = torch.empty(3, 2 * out.shape[1])
        matrix.fill(columns, memory[:, : out.shape[1]])
        assert torch.equal(memory[:, : out.shape[1]], out)


def test_a_mixed_matrix_keeps_layout_and_signs() -> None:
    layout = Layout.of([TensorSpec("body", "float32", (3,)), TensorSpec("head", "float32", (2,))])
    rows = torch.tensor([[1.0, 2.0, -3.0, 4.0, 5.0], [3.0, -4.0, -5.0, 0.0, 1.0]])
    mixing = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    matrix = MixedMatrix(UpdateMatrix.of(rows, layout=layout), mixing)
    assert matrix.slice(0, "head").tolist() == [2.0, 3.0]
    assert matrix.signs(slice(0, 5)).tolist() == [[0b11001]]


def test_mixed_weights_sum_to_one_and_equal_ones_stay_equal() -> None:
    mixing = Bucketing({"s": 2}).weights(UpdateMatrix.of(torch.ones(5, 1)), ROUND)
    equal = MixedMatrix(UpdateMatrix.of(torch.ones(5, 1)), mixing)
    assert equal.weights.tolist() == pytest.approx([1 / 3] * 3)
    assert equal.nodes == ("bucket-0", "bucket-1", "bucket-2")
    shares = [0.1, 0.2, 0.3, 0.4, 0.0]
    unequal = MixedMatrix(UpdateMatrix.of(torch.ones(5, 1), weights=shares), mixing)
    assert float(unequal.weights.sum()) == pytest.approx(1.0)
    means = mixing @ torch.tensor(shares, dtype=torch.float64)
    torch.testing.assert_close(unequal.weights, means / means.sum())


def test_mixing_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(LayoutError, match=r"4 rows.*\(2, 3\)"):
        MixedMatrix(UpdateMatrix.of(torch.ones(4, 2)), torch.ones(2, 3, dtype=torch.float64))
    with pytest.raises(LayoutError, match="2 mixed rows need 2 weights"):
        MixedMatrix(UpdateMatrix.of(torch.ones(3, 2)), torch.ones(2, 3).double()).weighted_sum(torch.ones(3))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 3), st.booleans())
@example(8857, 2, True)
def test_the_rule_sees_the_mixed_rows_as_if_they_had_been_sent(seed: int, f: int, bucket: bool) -> None:
    n = 2 * (2 * f + 3) + 3
    rows = rows_of(n, 25, seed)
    pre: list[PreAggregator] = [NearestNeighbourMixing({"f": f})]
    if bucket:
        pre.insert(0, Bucketing({"s": 2}))
    seen = rows
    for part in pre:
        seen = (part.weights(UpdateMatrix.of(seen), ROUND) @ seen.double()).float()
    for rule in (Krum({"f": f}), MultiKrum({"f": f}), GeometricMedian(), NormClip(), Mean()):
        found = Composed(pre, rule).aggregate(UpdateMatrix.of(rows), {}, ROUND)
        expected = rule.aggregate(UpdateMatrix.of(seen), {}, ROUND)
        if type(rule) is Krum:  # mixed rows are often equally good: rounding decides between them
            best = min(v.numbers["score"] for v in expected.verdicts)
            chosen = [
                row for row, v in zip(seen, expected.verdicts, strict=True) if v.numbers["score"] <= best * 1.00001
            ]
            assert min((found.direction.dense() - row).abs().max().item() for row in chosen) < 1e-4
        elif not on_the_edge(expected.verdicts):
            torch.testing.assert_close(found.direction.dense(), expected.direction.dense(), rtol=1e-3, atol=1e-4)


def on_the_edge(verdicts: Sequence[Verdict]) -> bool:
    """Whether the last row that a rule chose is as good as the first that it left out."""
    left_out = [v.numbers["score"] for v in verdicts if not v.accepted and "score" in v.numbers]
    chosen = [v.numbers["score"] for v in verdicts if v.accepted and "score" in v.numbers]
    return bool(left_out) and min(left_out) <= max(chosen) * 1.00001


def test_shares_are_those_with_which_the_nodes_rows_enter_the_result() -> None:
    rows = rows_of(12, 30, seed=2)
    for pre in ([NearestNeighbourMixing({"f": 2})], [Bucketing({"s": 2}), NearestNeighbourMixing({"f": 1})]):
        result = Composed(pre, MultiKrum({"f": 1})).aggregate(UpdateMatrix.of(rows), {}, ROUND)
        shares = torch.tensor([v.share for v in result.verdicts], dtype=torch.float64)
        assert float(shares.sum()) == pytest.approx(1.0)
        torch.testing.assert_close(result.direction.dense(), (shares @ rows.double()).float(), rtol=1e-5, atol=1e-6)
        assert [v.accepted for v in result.verdicts] == (shares > 0).tolist()


def test_behind_mixing_a_node_has_its_own_numbers() -> None:
    rows = rows_of(11, 30, seed=3)
    rows[4] += 100
    updates, pre = UpdateMatrix.of(rows), NearestNeighbourMixing({"f": 2})
    alone = Krum({"f": 2}).aggregate(MixedMatrix(updates, pre.weights(updates, ROUND)), {}, ROUND)
    verdicts = Composed([pre], Krum({"f": 2})).aggregate(updates, {}, ROUND).verdicts
    assert [v.numbers for v in verdicts] == [v.numbers for v in alone.verdicts]
    assert sum(v.accepted for v in verdicts) == 9
    assert not verdicts[4].accepted
    assert verdicts[4].reason == alone.verdicts[4].reason
    assert verdicts[4].share == 0


def test_behind_bucketing_nodes_share_the_verdict_of_their_bucket() -> None:
    rows = rows_of(14, 30, seed=4)
    rows[9] += 100
    verdicts = Composed([Bucketing({"s": 2})], Krum({"f": 1})).aggregate(UpdateMatrix.of(rows), {}, ROUND).verdicts
    mixing = Bucketing({"s": 2}).weights(UpdateMatrix.of(rows), ROUND)
    for bucket, members in enumerate(mixing):
        first, second = (verdicts[j] for j in members.nonzero().flatten().tolist())
        assert first.numbers == second.numbers
        assert first.numbers["bucket"] == bucket
        assert (first.accepted, first.share, first.reason) == (second.accepted, second.share, second.reason)
    assert sorted(v.share for v in verdicts)[-3:] == [0, 0.5, 0.5]
    assert verdicts[9].reason.startswith("of its bucket, not of this update alone: ")


def test_two_times_bucketing_still_finds_the_bucket_of_a_node() -> None:
    rows = rows_of(8, 10, seed=5)
    pre = [Bucketing({"s": 2}), Bucketing({"s": 2})]
    verdicts = Composed(pre, Mean()).aggregate(UpdateMatrix.of(rows), {}, ROUND).verdicts
    assert sorted(v.numbers["bucket"] for v in verdicts) == [0.0] * 4 + [1.0] * 4
    assert [v.share for v in verdicts] == pytest.approx([1 / 8] * 8)


def test_it_is_used_like_the_rule() -> None:
    clip, trust = Composed([Bucketing()], CenteredClip()), Composed([Bucketing()], FLTrust())
    assert (clip.state_names, clip.needs_root, clip.votes, clip.weighs) == (("center",), False, False, False)
    assert trust.needs_root
    assert Composed([Bucketing()], Mean()).weighs
    assert clip.options is clip.rule.options
    assert Composed([], Mean()).aggregate(UpdateMatrix.of(torch.ones(2, 3)), {}, ROUND).verdicts[0].share == 0.5


def test_state_goes_through_in_both_directions() -> None:
    rows = rows_of(6, 40, seed=6)
    rule = CenteredClip({"tau": 0.5})
    composed = Composed([Bucketing({"s": 3})], rule)
    state = {"center": torch.full((40,), 2.0)}
    found = composed.aggregate(UpdateMatrix.of(rows), state, ROUND)
    seen = MixedMatrix(UpdateMatrix.of(rows), Bucketing({"s": 3}).weights(UpdateMatrix.of(rows), ROUND))
    expected = rule.aggregate(UpdateMatrix.of(seen.dense()), state, ROUND)
    torch.testing.assert_close(found.state["center"].dense(), expected.direction.dense(), rtol=1e-5, atol=1e-5)


def test_trusted_data_reach_the_rule() -> None:
    rows, root = rows_of(6, 40, seed=7), torch.ones(40)
    context = AggregationContext(round=1, seed=0, root=QuadraticRoot(root))
    mean = Composed([NearestNeighbourMixing()], FLTrust()).aggregate(UpdateMatrix.of(rows), {}, context)
    plain = FLTrust().aggregate(UpdateMatrix.of(rows.mean(0)[None]), {}, context)
    torch.testing.assert_close(mean.direction.dense(), plain.direction.dense(), rtol=1e-4, atol=1e-5)


def test_numbers_of_updates_are_checked_behind_the_pre_aggregators() -> None:
    composed = Composed([Bucketing({"s": 2}), NearestNeighbourMixing({"f": 5})], Krum({"f": 3}))
    assert composed.min_updates() == 21
    message = "Bucketing before NearestNeighbourMixing before Krum needs at least 21 updates, the round has 20"
    with pytest.raises(RunFailed, match=message):
        composed.aggregate(UpdateMatrix.of(torch.ones(20, 2)), {}, ROUND)
    assert composed.aggregate(UpdateMatrix.of(torch.ones(21, 2)), {}, ROUND).direction.d == 2


def test_a_rule_that_reads_signs_is_refused() -> None:
    class Signs(Mean):
        votes = True

    with pytest.raises(SpecError, match="Signs reads signs"):
        Composed([Bucketing()], Signs())


def test_one_huge_row_spoils_only_its_bucket() -> None:
    rows = rows_of(12, 30, seed=8)
    huge = rows.clone()
    huge[0] = 1e18
    for rows_sent in (rows, huge):
        result = Composed([Bucketing({"s": 2})], GeometricMedian()).aggregate(UpdateMatrix.of(rows_sent), {}, ROUND)
        assert float(result.direction.dense().norm()) < 12
