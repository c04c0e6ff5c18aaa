from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation.attacks import (
    ALIE,
    ATTACKS,
    IPM,
    AttackContext,
    Gaussian,
    LazyCopy,
    Mimic,
    MinMax,
    MinSum,
    StaleReplay,
)
from covey.aggregation.attacks.omniscient import auto_z
from covey.aggregation.attacks.single import normal
from covey.aggregation.matrix import UpdateMatrix
from covey.errors import LayoutError, RunFailed
from covey.seeds import derive_seed
from covey.testing.attacks import AttackConformance
from covey.vectors import TensorVector

D = 300
NAMES = [plugin.name for plugin in ATTACKS.installed()]
matrices = st.builds(
    lambda seed, k, scale, shift: torch.randn(k, 40, generator=torch.Generator().manual_seed(seed)) * scale + shift,
    st.integers(0, 10_000),
    st.integers(2, 9),
    st.sampled_from([1e-3, 1.0, 50.0]),
    st.sampled_from([0.0, 1.0, -3.0]),
)


def honest(k=8, d=D, seed=1):
    return torch.randn(k, d, generator=torch.Generator().manual_seed(seed)) + 0.3


def context(rows=None, **fields):
    known = None if rows is None else UpdateMatrix.of(rows)
    return AttackContext(**{"round": 1, "seed": 5, "known": known, **fields})


def dense(source, width=None):
    pieces = [
        source.read(slice(a, min(a + (width or source.d), source.d))) for a in range(0, source.d, width or source.d)
    ]
    return torch.cat([piece.clone() for piece in pieces])


def sent(attack, rows, own=None, **fields):
    own = torch.ones(rows.shape[1]) if own is None else own
    return dense(attack.vector(TensorVector(own), context(rows, **fields)))


# -- every attack


class _Conformance(AttackConformance):
    name: ClassVar[str]
    options: ClassVar[dict[str, Any]]

    def make(self):
        return ATTACKS.make(self.name, self.options)


_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("alie", {"z": "auto"}),
    ("min-max", {"p": "unit"}),
    ("min-sum", {"p": "sign"}),
    ("lazy-copy", {"noise": 0.1}),
    ("stale-replay", {"refresh": 2}),
    ("mimic", {"warmup": 2}),
]
for _name, _options in [*((name, {}) for name in NAMES), *_OPTIONS]:
    _class = f"Test_{_name}_{'_'.join(map(str, _options.values()))}"
    globals()[_class] = type(_class, (_Conformance,), {"name": _name, "options": _options, "__test__": True})


@pytest.mark.parametrize("name", [name for name in NAMES if ATTACKS.load(name).omniscient])
def test_an_omniscient_attack_alone_says_what_to_do(name):
    text = f"attack {name} needs to know at least [12] honest vectors, and knows 0: .*--attack-group"
    with pytest.raises(RunFailed, match=text):
        ATTACKS.make(name).vector(TensorVector(torch.ones(D)), context())


# -- one adversary alone


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("sign-flip", {}, lambda x: -x),
        ("sign-flip", {"scale": 3}, lambda x: -3 * x),
        ("scaled", {}, lambda x: -10 * x),
        ("scaled", {"factor": 0.5}, lambda x: x / 2),
        ("constant", {"value": 2}, lambda x: torch.full_like(x, 2)),
        ("label-flip", {}, lambda x: x),
    ],
)
def test_functions_of_the_own_vector(name, options, expected):
    own = torch.randn(D)
    assert torch.equal(dense(ATTACKS.make(name, options).vector(TensorVector(own), context())), expected(own))


def test_nan_is_nan():
    assert sent(ATTACKS.make("nan"), honest()).isnan().all()


def test_only_label_flip_poisons_labels():
    assert [name for name in NAMES if ATTACKS.load(name).poisons_labels] == ["label-flip"]


def test_gaussian_has_the_standard_deviation_and_is_new_for_each_node_and_round():
    rows = torch.zeros(2, 200_000)
    one = sent(Gaussian(), rows)
    assert one.std().item() == pytest.approx(200, rel=0.01)
    assert abs(one.mean().item()) < 2
    for other in (sent(Gaussian(), rows, round=2), sent(Gaussian(), rows, node=1), sent(Gaussian(), rows, seed=6)):
        assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 0.02


def rounds_of(attack, vectors, rows=None):
    """What an attack sends round by round, with its memory carried along."""
    memory, out = {}, []
    for number, own in enumerate(vectors, 1):
        now = context(rows[number - 1] if rows is not None else None, round=number, memory=memory)
        out.append(dense(attack.vector(TensorVector(own), now)))
        memory = {name: dense(value) for name, value in attack.remembered(TensorVector(own), now).items()}
    return out


def test_stale_replay_sends_its_first_vector_for_ever():
    own = list(torch.randn(5, D))
    assert all(torch.equal(x, own[0]) for x in rounds_of(StaleReplay(), own))


def test_stale_replay_takes_a_new_vector_now_and_then():
    own = list(torch.randn(5, D))
    found = rounds_of(StaleReplay({"refresh": 2}), own)
    assert [next(i for i, x in enumerate(own) if torch.equal(x, y)) for y in found] == [0, 0, 2, 2, 4]


def test_stale_replay_refuses_a_memory_of_another_model():
    memory = {"vector": torch.zeros(D + 1), "since": torch.ones(1)}
    with pytest.raises(LayoutError, match="301 elements"):
        sent(StaleReplay(), honest(), memory=memory)


def test_a_lazy_node_copies_another_or_the_last_change_or_nothing():
    rows, change, own = honest(), torch.randn(D), TensorVector(torch.ones(D))
    assert torch.equal(sent(LazyCopy(), rows), rows[0])
    assert torch.equal(dense(LazyCopy().vector(own, context(change=TensorVector(change)))), change)
    assert not dense(LazyCopy().vector(own, context())).any()
    noisy = dense(LazyCopy({"noise": 0.5}).vector(own, context(change=TensorVector(change))))
    assert (noisy - change).std().item() == pytest.approx(0.5, rel=0.15)


# -- dissensus


def test_dissensus_of_strength_1_keeps_its_receiver_where_it_is_and_above_drives_it_away():
    rows, receiver = honest().double(), torch.randn(D, dtype=torch.float64)
    pull = (rows - receiver).sum(0)
    for epsilon in (1.0, 1.5):
        attack = ATTACKS.make("dissensus", {"epsilon": epsilon})
        vector = sent(attack, rows.float(), attackers=3, receiver=TensorVector(receiver.float())).double()
        moved = pull + 3 * (vector - receiver)  # what equal weights make of neighbours and three adversaries
        torch.testing.assert_close(moved, (1 - epsilon) * pull, rtol=1e-4, atol=1e-4)


# -- ALIE, IPM


def test_alie_is_the_mean_minus_z_deviations():
    rows = honest().double()
    deviation = ((rows - rows.mean(0)) ** 2).mean(0).sqrt()
    torch.testing.assert_close(
        sent(ALIE(), rows.float()).double(), rows.mean(0) - 1.5 * deviation, rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        sent(ALIE({"z": "auto"}), rows.float(), nodes=25, attackers=5).double(),
        rows.mean(0) - 0.2533471 * deviation,
        rtol=1e-5,
        atol=1e-5,
    )


def test_the_automatic_z_is_the_papers():
    # n = 50, f = 24 is the paper's own example: s = 50 // 2 + 1 - 24 = 2, z = Phi^-1(24/26) = 1.43
    assert auto_z(50, 24) == pytest.approx(1.43, abs=0.005)
    assert auto_z(25, 5) == pytest.approx(0.2533, abs=1e-4)
    assert auto_z(25, 5) < auto_z(25, 8) < auto_z(25, 12)


@pytest.mark.parametrize(("nodes", "attackers"), [(0, 0), (10, 0), (10, 6), (0, 3)])
def test_the_automatic_z_is_refused_where_it_is_not_defined(nodes, attackers):
    with pytest.raises(RunFailed, match=f"n = {nodes}, f = {attackers}; give z as a number"):
        sent(ALIE({"z": "auto"}), honest(), nodes=nodes, attackers=attackers)


@settings(deadline=None)
@given(matrices)
def test_alie_stays_within_z_deviations_of_the_mean(rows):
    shift = (sent(ALIE(), rows) - rows.mean(0)).abs()
    assert (shift <= 1.5 * rows.std(0, correction=0) * 1.001 + 1e-4 * rows.abs().max()).all()


@settings(deadline=None)
@given(matrices)
def test_ipm_turns_the_mean_around(rows):
    vector = sent(IPM({"epsilon": 2}), rows)
    torch.testing.assert_close(vector, -2 * rows.mean(0), rtol=1e-5, atol=1e-6)


def test_ipm_makes_the_results_product_with_the_honest_mean_negative_only_if_it_is_gross():
    """f of n send -eps mu: the mean is ((n - f) - f eps) / n mu."""
    rows = honest(k=20)
    for epsilon, negative in ((0.1, False), (3.9, False), (4.1, True)):
        sending = sent(IPM({"epsilon": epsilon}), rows)
        result = (rows.sum(0) + 5 * sending) / 25
        assert (torch.dot(result, rows.mean(0)) < 0) == negative


# -- min-max, min-sum


def largest_by_bisection(rows, p, fits):
    """The largest gamma for which mu + gamma p fits, for a set of gammas that is an interval from zero."""
    low, high = 0.0, 1.0
    while fits(rows.mean(0) + high * p):
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(rows.mean(0) + middle * p) else (low, middle)
    return rows.mean(0) + low * p


def direction(rows, p):
    mean = rows.mean(0)
    return {"unit": -mean / mean.norm(), "std": -rows.std(0), "sign": -mean.sign()}[p]


@pytest.mark.parametrize("p", ["unit", "std", "sign"])
@settings(deadline=None, max_examples=40)
@given(matrices)
def test_min_max_is_what_bisection_finds(p, rows):
    wide = rows.double()
    bound = torch.cdist(wide, wide, compute_mode="donot_use_mm_for_euclid_dist").max()
    expected = largest_by_bisection(wide, direction(wide, p), lambda x: (wide - x).norm(dim=1).max() <= bound)
    found = sent(MinMax({"p": p}), rows).double()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * rows.abs().max().item())
    assert (wide - found).norm(dim=1).max() <= bound * (1 + 1e-3)


@pytest.mark.parametrize("p", ["unit", "std", "sign"])
@settings(deadline=None, max_examples=40)
@given(matrices)
def test_min_sum_is_what_bisection_finds(p, rows):
    wide = rows.double()
    bound = torch.cdist(wide, wide, compute_mode="donot_use_mm_for_euclid_dist").square().sum(1).max()
    expected = largest_by_bisection(wide, direction(wide, p), lambda x: (wide - x).square().sum() <= bound)
    found = sent(MinSum({"p": p}), rows).double()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * rows.abs().max().item())


@pytest.mark.parametrize("attack", [MinMax, MinSum, ALIE])
def test_identical_vectors_leave_nothing_but_their_mean(attack):
    rows = torch.randn(D).repeat(4, 1)
    torch.testing.assert_close(sent(attack(), rows), rows[0])


# -- mimic


def skewed(rounds, favourite=2, k=6, d=50):
    """Vectors of equal noise, but one node lies far out along a direction of its own."""
    generator = torch.Generator().manual_seed(3)
    outer = torch.randn(d, generator=generator)
    made = [torch.randn(k, d, generator=generator) * 0.1 for _ in range(rounds)]
    for rows in made:
        rows[favourite] += outer
    return made


def test_mimic_finds_the_node_that_differs_most_and_sticks_to_it():
    rows = skewed(30)
    later = [x.flip(0) for x in rows[20:]]  # after the warm-up another node differs most
    found = rounds_of(Mimic({"warmup": 20}), [torch.zeros(50)] * 30, rows[:20] + later)
    assert all(torch.equal(found[i], rows[i][2]) for i in range(10, 20))
    assert all(torch.equal(found[20 + i], later[i][2]) for i in range(10))


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_mimic_does_not_depend_on_the_vectors_units(scale):
    rows = skewed(12)
    found = rounds_of(Mimic(), [torch.zeros(50)] * 12, [x * scale for x in rows])
    assert torch.equal(found[-1], rows[-1][2] * scale)


def test_the_direction_of_mimic_becomes_that_of_the_largest_variance():
    rows = skewed(40)
    attack, memory = Mimic({"warmup": 40}), {}
    for number, known in enumerate(rows, 1):
        learned = attack.remembered(TensorVector(torch.zeros(50)), context(known, round=number, memory=memory))
        memory = {name: dense(value) for name, value in learned.items()}
    everything = torch.cat([x - torch.stack(rows).mean((0, 1)) for x in rows])
    top = torch.linalg.svd(everything, full_matrices=False).Vh[0]
    assert abs(torch.dot(top, memory["direction"])) > 0.99
    assert memory["direction"].norm().item() == pytest.approx(1, abs=1e-5)


def test_the_first_step_of_mimic_leaves_nothing_of_the_random_direction():
    rows = skewed(1)[0]
    learned = Mimic().remembered(TensorVector(torch.zeros(50)), context(rows, round=1))
    found = dense(learned["direction"])
    centred = rows - rows.mean(0)
    z = normal(50, 1.0, derive_seed(context(rows).seed, "mimic")).read(slice(0, 50))
    v = (centred @ (z / z.norm())) @ centred
    torch.testing.assert_close(found, v / v.norm(), rtol=1e-4, atol=1e-5)
    again = Mimic().remembered(TensorVector(torch.zeros(50)), context(rows, round=9))  # it begins anew in any round
    torch.testing.assert_close(dense(again["direction"]), found)


def test_mimic_begins_anew_when_other_nodes_take_part():
    memory = {"mean": torch.zeros(50), "direction": torch.ones(50), "scores": torch.ones(4)}
    rows = skewed(1)[0]
    assert any(torch.equal(sent(Mimic(), rows, memory=memory), row) for row in rows)
