from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue
from torch import Tensor

from covey.aggregation.asynchronous.contract import Arrival, AsyncContext, Decision
from covey.aggregation.asynchronous.dampening import DampeningOptions, exponential, hinge, inverse, polynomial
from covey.aggregation.asynchronous.kardam import Kardam, KardamState
from covey.aggregation.asynchronous.kardam_filters import (
    coefficient,
    fraction_quantile,
    gradient_norms,
    interpolated_quantile,
    model_distance,
    next_window,
    quantile,
    too_frequent,
)
from covey.errors import RunFailed, SpecError
from covey.testing.policies import PolicyRun
from covey.vectors import BLOCK_ELEMENTS, TensorVector

N, F, D = 10, 3, 60
MINIMUM = torch.linspace(-1, 1, D)


def learned(
    options: dict[str, JsonValue], attack: float | None, deliveries: int = 1500, rate: float = -0.2
) -> tuple[PolicyRun, dict[bool, Counter[str]]]:
    """Noisy quadratic, 10 nodes in random order (so staleness is about 9), the last three send attack x gradient."""
    run = PolicyRun(Kardam({"f": F, **options}), torch.full((D,), 3.0), N, rate)
    generator = torch.Generator().manual_seed(4)
    counts: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    for _ in range(deliveries):
        i = int(torch.randint(N, (), generator=generator))
        node, byzantine = run.roster[i], attack is not None and i >= N - F
        gradient = run.base(node) - MINIMUM + 0.5 * torch.randn(D, generator=generator)
        decision = run.deliver(node, gradient * attack if byzantine and attack is not None else gradient)
        counts[byzantine][decision.verdicts[0].verdict] += 1
    return run, counts


def part(counts: Counter[str], verdict: str) -> float:
    return counts[verdict] / counts.total()


# -- the scalars


@given(st.integers(0, 100), st.floats(0.01, 3), st.integers(0, 10))
def test_dampening_is_one_without_staleness_and_falls(tau: int, rate: float, b: int) -> None:
    for factor in (
        inverse,
        lambda t: exponential(t, rate),
        lambda t: polynomial(t, rate),
        lambda t: hinge(t, rate, b),
        DampeningOptions(dampening="exponential", dampening_rate=rate).factor,
        DampeningOptions().factor,
    ):
        assert factor(0) == 1
        assert 0 < factor(tau + 1) <= factor(tau) <= 1


def test_dampening_has_the_papers_values_by_default() -> None:
    assert DampeningOptions(dampening="inverse").factor(4) == pytest.approx(1 / 5)
    assert DampeningOptions(dampening="exponential").factor(5) == pytest.approx(math.exp(-1))
    assert DampeningOptions(dampening="polynomial").factor(3) == pytest.approx(0.5)
    assert DampeningOptions(dampening="hinge").factor(4) == 1
    assert DampeningOptions(dampening="hinge").factor(6) == pytest.approx(1 / 21)


@given(st.integers(1, 2 * BLOCK_ELEMENTS), st.floats(-8, 8).filter(lambda c: abs(c) > 1e-3))
@settings(deadline=None, max_examples=10)
def test_coefficients_do_not_see_signs_and_scale_with_the_gradients(d: int, factor: float) -> None:
    g, old, x, y = torch.randn(4, d, generator=torch.Generator().manual_seed(d))
    norm, change = gradient_norms(TensorVector(g), TensorVector(old))
    moved = model_distance(TensorVector(x), TensorVector(y))
    assert norm == pytest.approx(float(g.double().norm()))
    assert change == pytest.approx(float((g.double() - old.double()).norm()))
    assert moved == pytest.approx(float((x.double() - y.double()).norm()))
    _, flipped = gradient_norms(TensorVector(-g), TensorVector(-old))
    assert coefficient(flipped, moved) == coefficient(change, moved)
    _, scaled = gradient_norms(TensorVector(factor * g), TensorVector(factor * old))
    found, wanted = coefficient(scaled, moved), coefficient(change, moved)
    assert found is not None
    assert wanted is not None
    assert found == pytest.approx(abs(factor) * wanted, rel=1e-4)


def test_there_is_no_coefficient_without_a_change_of_model() -> None:
    assert coefficient(None, 1.0) is None
    assert coefficient(1.0, 0.0) is None
    assert coefficient(1e300, 1e-300) is None
    assert coefficient(3.0, 2.0) == 1.5


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20), st.integers(0, 6))
def test_the_quantile_is_the_papers_once_all_nodes_are_known(values: list[float], f: int) -> None:
    n, found = len(values), quantile(values, f)
    if n <= f:
        assert found is None
        return
    assert found == sorted(values)[math.ceil(n * (n - f) / n) - 1] == fraction_quantile(values, (n - f) / n)
    assert sum(v <= found for v in values) >= n - f


@given(st.lists(st.floats(0, 10), min_size=1, max_size=12), st.lists(st.floats(0, 1e9), max_size=3))
def test_f_liars_cannot_raise_the_quantile_above_all_honest_values(honest: list[float], lies: list[float]) -> None:
    found = quantile([*honest, *lies], 3)
    assert found is None or found <= max(honest)


def test_of_exchangeable_coefficients_the_filter_accepts_n_minus_f_of_n() -> None:
    generator = torch.Generator().manual_seed(5)
    newest = torch.rand(N, generator=generator).tolist()
    accepted = 0
    for t in range(20000):
        newest[t % N] = float(torch.rand((), generator=generator))
        limit = quantile(newest, F)
        accepted += limit is not None and newest[t % N] <= limit
    assert accepted / 20000 == pytest.approx((N - F) / N, abs=0.01)


@given(st.lists(st.integers(0, 6), max_size=200), st.integers(1, 3), st.sampled_from(["strict", "loose"]))
@settings(deadline=None)
def test_no_window_of_accepted_updates_has_too_many_of_anyone(nodes: list[int], f: int, how: Any) -> None:
    accepted: list[str] = []
    window: tuple[str, ...] = ()
    for node in map(str, nodes):
        if too_frequent(node, window, f, how):
            continue
        accepted.append(node)
        window = next_window(window, node, f)
        assert window == tuple(accepted[-2 * f :])
    for start in range(max(0, len(accepted) - 2 * f)):
        counts = Counter(accepted[start : start + 2 * f + 1])
        assert max(counts.values()) <= f
        if how == "strict":
            assert sum(count for _, count in counts.most_common(f)) <= f


def test_the_frequency_filter_can_be_off_and_needs_no_f() -> None:
    assert not too_frequent("a", ("a", "a"), 1, "off")
    assert not too_frequent("a", (), 0, "strict")
    assert next_window(("a",), "b", 0) == ()


# -- the policy


def test_n_of_at_most_3f_is_refused() -> None:
    policy = Kardam({"f": 3})
    assert policy.min_nodes() == 10
    with pytest.raises(SpecError, match=r"at least 10 nodes, async\.min_nodes is 9"):
        policy.require(9, "async.min_nodes is")
    run = PolicyRun(policy, torch.zeros(D), 9)
    with pytest.raises(RunFailed, match="kardam with f = 3 needs more than 9 nodes, the roster has 9"):
        run.deliver("node-0", torch.ones(D))


def decide_at(
    policy: Kardam, state: KardamState, node: int, version: int, gradients: dict[int, Tensor], number: int
) -> Decision[KardamState]:
    """A decision where version v is the model [v, 0, ...] and every node has the newest version."""

    class Line:
        def update(self, number: int) -> TensorVector:
            return TensorVector(gradients[number])

        def held(self, number: int) -> Arrival:
            raise KeyError(number)

        def model(self, version: int) -> TensorVector:
            return TensorVector(torch.tensor([float(version), 0.0]))

    context = AsyncContext(version, tuple(map(str, range(N))), Line())
    return policy.decide(Arrival(number, str(node), 1.0, version, TensorVector(gradients[number])), state, context)


def test_a_decision_by_the_formula() -> None:
    gradients = {1: torch.tensor([1.0, 0.0]), 2: torch.tensor([1.0, 6.0])}
    policy = Kardam({"f": 0, "norm_bound": 0})
    first = decide_at(policy, KardamState(), 0, 5, gradients, 1)
    second = decide_at(policy, first.state, 0, 8, gradients, 2)
    (verdict,) = second.verdicts
    assert verdict.numbers == {
        "staleness": 0,
        "dampening": 1,
        "norm": pytest.approx(math.sqrt(37)),
        "coefficient": 2,
        "quantile": 2,
    }
    assert second.step is not None
    assert torch.equal(second.step.direction.dense(), gradients[2])
    assert policy.pinned(second.state).updates == (2,)
    assert policy.pinned(second.state).versions == (8,)


def test_of_identically_distributed_gradients_n_minus_f_of_n_are_accepted() -> None:
    generator = torch.Generator().manual_seed(6)
    policy, state, gradients, accepted = Kardam({"f": F}), KardamState(), dict[int, Tensor](), 0
    rounds, skipped = 320, 20
    for number in range(1, rounds * N + 1):
        gradients[number] = torch.randn(2, generator=generator)
        decision = decide_at(policy, state, number % N, number, gradients, number)
        state = decision.state
        accepted += number > skipped * N and decision.verdicts[0].verdict == "accepted"
        gradients.pop(number - 3 * N, None)
    assert accepted / ((rounds - skipped) * N) == pytest.approx((N - F) / N, abs=0.03)


@pytest.mark.parametrize("norm_bound", [0, 2])
def test_large_reversed_gradients_are_rejected_and_the_model_is_learned(norm_bound: float) -> None:
    run, counts = learned({"norm_bound": norm_bound}, attack=-10.0)
    free, _ = learned({"norm_bound": norm_bound}, attack=None)
    assert part(counts[True], "rejected") > 0.9
    assert part(counts[False], "accepted") > 0.9
    assert (run.newest - MINIMUM).norm() < 1.5 * (free.newest - MINIMUM).norm()


def test_the_norm_bound_rejects_by_the_quantile_of_norms_and_keeps_honest_updates() -> None:
    _, counts = learned({}, attack=-10.0, rate=-0.05)
    _, without = learned({"norm_bound": 0}, attack=-10.0, rate=-0.05)
    assert counts[True]["accepted"] < without[True]["accepted"]
    _, free = learned({}, attack=None)
    _, free_without = learned({"norm_bound": 0}, attack=None)
    assert part(free[False], "accepted") > part(free_without[False], "accepted") - 0.02
    run = PolicyRun(Kardam({"f": 1}), torch.zeros(D), 4, rate=-0.001)
    for scale, node in enumerate(run.roster, start=1):
        run.deliver(node, scale * torch.ones(D))
    verdict = run.deliver("node-0", 8.1 * torch.ones(D)).verdicts[0]
    assert "is above 2 x the quantile" in verdict.reason
    assert verdict.numbers["norm_quantile"] == pytest.approx(4 * math.sqrt(D))


def test_a_huge_first_update_is_kept_out() -> None:
    run = PolicyRun(Kardam({"f": 1}), torch.zeros(D), 4)
    verdicts = [run.deliver(node, torch.full((D,), 1e6)).verdicts[0] for node in ("node-0", "node-0", "node-0")]
    assert [v.verdict for v in verdicts] == ["rejected"] * 3
    assert "too few nodes are known" in verdicts[0].reason
    for node in ("node-1", "node-2", "node-3"):
        run.deliver(node, torch.ones(D))
    verdict = run.deliver("node-0", torch.full((D,), 1e6)).verdicts[0]
    assert verdict.verdict == "rejected"
    assert verdict.numbers["norm_quantile"] == pytest.approx(math.sqrt(D))


def test_without_attack_honest_updates_are_accepted_at_about_the_papers_rate() -> None:
    _, counts = learned({}, attack=None)
    assert part(counts[False], "accepted") == pytest.approx((N - F) / N, abs=0.1)


def test_it_cannot_see_a_flipped_sign() -> None:
    _, counts = learned({}, attack=-1.0)
    honest, byzantine = part(counts[False], "accepted"), part(counts[True], "accepted")
    assert byzantine == pytest.approx(honest, abs=0.15)


def test_the_literal_server_side_reading_starves() -> None:
    _, literal = learned({"variant": "server"}, attack=None)
    _, own = learned({}, attack=None)
    assert part(literal[False], "accepted") < 0.5 * part(own[False], "accepted")


@pytest.mark.parametrize(("variant", "kept", "most"), [("official", 1, 0.4), ("official-25", 25, 0.3)])
def test_the_official_variant_rejects_the_attack_but_for_its_hatch(variant: str, kept: int, most: float) -> None:
    _, counts = learned({"variant": variant, "patience": 10**6}, attack=-10.0)
    assert part(counts[True], "rejected") > 0.9
    run, open_hatch = learned({"variant": variant}, attack=-10.0)
    assert {len(worker.coefficients) for worker in state_of(run).workers.values()} == {kept}
    assert part(counts[True], "accepted") < part(open_hatch[True], "accepted") < most
    assert part(counts[False], "accepted") < 0.1 < 0.5 < part(open_hatch[False], "accepted")


@pytest.mark.parametrize("variant", ["official", "official-25"])
def test_the_official_variant_accepts_what_it_cannot_compare(variant: str) -> None:
    run = PolicyRun(Kardam({"f": 1, "variant": variant}), torch.zeros(D), 4)
    assert run.deliver("node-0", torch.full((D,), 1e6)).verdicts[0].verdict == "accepted"


@pytest.mark.parametrize(("variant", "remembers"), [("official", True), ("official-25", False)])
def test_a_large_coefficient_rules_for_ever_in_the_authors_code(variant: str, remembers: bool) -> None:
    run = PolicyRun(Kardam({"f": 0, "variant": variant, "patience": 1}), torch.full((D,), 3.0), 1)
    generator = torch.Generator().manual_seed(5)
    for number in range(60):
        scale = 50.0 if number == 10 else 1.0
        run.deliver("node-0", scale * (run.base("node-0") + 0.1 * torch.randn(D, generator=generator)))
        if number == 11:
            largest = max(state_of(run).workers["node-0"].coefficients)
    assert (max(state_of(run).workers["node-0"].coefficients) == largest) is remembers


@given(st.lists(st.floats(0, 1e6), max_size=12), st.floats(0.01, 0.99))
def test_the_interpolated_quantile_is_numpys_weibull(values: list[float], fraction: float) -> None:
    found = interpolated_quantile(values, fraction)
    if not values:
        assert found is None
        return
    assert found == pytest.approx(float(np.quantile(values, fraction, method="weibull")), rel=1e-9, abs=1e-9)


def test_the_first_official_coefficient_is_that_of_the_gradient_and_the_model() -> None:
    run = PolicyRun(Kardam({"f": 1, "variant": "official"}), torch.full((D,), 2.0), 4)
    verdict = run.deliver("node-0", torch.full((D,), 6.0)).verdicts[0]
    assert verdict.verdict == "accepted"
    assert verdict.numbers["coefficient"] == pytest.approx(3.0)


def state_of(run: PolicyRun) -> KardamState:
    assert isinstance(run.state, KardamState)
    return run.state


@pytest.mark.parametrize("variant", ["server", "official"])
def test_updates_escape_after_n_rejections_in_a_row_and_say_so(variant: str) -> None:
    run = PolicyRun(Kardam({"f": 2, "variant": variant}), torch.full((D,), 3.0), 7)
    generator = torch.Generator().manual_seed(7)
    rejected = escapes = 0
    for _ in range(400):
        node = run.roster[int(torch.randint(7, (), generator=generator))]
        verdict = run.deliver(node, run.base(node) + torch.randn(D, generator=generator)).verdicts[0]
        escaped = "escape" in verdict.numbers
        assert escaped == (f"after {rejected} rejections in a row" in verdict.reason)
        if escaped:
            assert (verdict.verdict, rejected >= 7) == ("accepted", True)
            assert verdict.numbers["coefficient"] > verdict.numbers["quantile"]
        if verdict.verdict == "rejected" and rejected >= 7:
            assert verdict.numbers["norm"] > verdict.numbers["norm_quantile"]
        escapes += escaped
        rejected = 0 if verdict.verdict == "accepted" else rejected + 1
    assert escapes > 3


@pytest.mark.parametrize("variant", ["self", "server", "official"])
def test_it_never_waits_for_ever(variant: str) -> None:
    generator = torch.Generator().manual_seed(8)
    run = PolicyRun(Kardam({"f": 2, "variant": variant}), torch.zeros(D), 7, rate=-1e-6)
    rejected = longest = 0
    for _ in range(1500):
        node = run.roster[int(torch.randint(7, (), generator=generator))]
        scale = float(torch.randn((), generator=generator).mul(3).exp())
        verdict = run.deliver(node, scale * torch.randn(D, generator=generator)).verdicts[0]
        rejected = 0 if verdict.verdict == "accepted" else rejected + 1
        longest = max(longest, rejected)
    assert longest <= 7 * 7


@pytest.mark.parametrize("how", ["loose", "strict"])
def test_the_frequency_filter_holds_for_a_run(how: str) -> None:
    run = PolicyRun(Kardam({"f": 2, "frequency": how}), torch.full((D,), 3.0), 7)
    generator, accepted = torch.Generator().manual_seed(9), list[str]()
    for _ in range(600):
        # One node is ten times as fast as the others.
        i = max(0, int(torch.randint(16, (), generator=generator)) - 9)
        node = run.roster[i]
        verdict = run.deliver(node, run.base(node) + 0.3 * torch.randn(D, generator=generator)).verdicts[0]
        accepted += [node] if verdict.verdict == "accepted" else []
    assert len(accepted) > 50
    for start in range(len(accepted) - 4):
        counts = Counter(accepted[start : start + 5])
        assert max(counts.values()) <= (1 if how == "strict" else 2)


def test_options_are_checked() -> None:
    with pytest.raises(SpecError, match=r"options.frequency: .*'off', 'loose' or 'strict'"):
        Kardam({"frequency": "often"})
    with pytest.raises(SpecError, match=r"options.f: .*greater than or equal to 0"):
        Kardam({"f": -1})
