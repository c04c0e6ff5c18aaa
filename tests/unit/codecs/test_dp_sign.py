from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from covey.codecs.contract import Codec, CodecContext
from covey.codecs.dp_sign import DpSign, analytic_gaussian, below, laplace_tail
from covey.codecs.sign import Sign
from covey.errors import SpecError, TaskError
from covey.testing.codecs import CodecConformance, decoded, encoded
from covey.vectors import TensorVector

Options = dict[str, Any]
GAUSSIAN: Options = {"epsilon": 0.5, "delta": 1e-5, "clip": 4.0}
ANALYTIC: Options = {"epsilon": 3.0, "delta": 1e-3, "clip": 4.0, "mechanism": "analytic-gaussian"}
LAPLACE: Options = {"epsilon": 2.0, "delta": 0.0, "clip": 1.5, "mechanism": "laplace"}
CONTEXT = CodecContext(seed=1, round=1)
SIGNS = 200_000


class TestGaussian(CodecConformance):
    def make(self) -> Codec:
        return DpSign(GAUSSIAN)


class TestLaplace(CodecConformance):
    def make(self) -> Codec:
        return DpSign(LAPLACE)


def positive(options: Options, value: float, seed: int = 1) -> float:
    """The share of +1 among many elements of one value."""
    vector = torch.full((SIGNS,), value)
    data = encoded(DpSign(options), TensorVector(vector), replace(CONTEXT, seed=seed))
    return (decoded(DpSign(options), data, SIGNS) > 0).double().mean().item()


def noisy(options: Options, value: float) -> float:
    """The share of positive values among as many with noise added."""
    generator = torch.Generator().manual_seed(8)
    if options is LAPLACE:
        scale = options["clip"] / options["epsilon"]
        exponential = torch.empty(2, SIGNS).exponential_(generator=generator)
        noise = scale * (exponential[0] - exponential[1])
    elif options is GAUSSIAN:
        sigma = math.sqrt(2 * math.log(1.25 / options["delta"])) * options["clip"] / options["epsilon"]
        noise = sigma * torch.randn(SIGNS, generator=generator)
    else:
        noise = DpSign(options).options.noise * torch.randn(SIGNS, generator=generator)
    positives: Tensor = value + noise > 0
    return positives.double().mean().item()


@pytest.mark.parametrize("options", [GAUSSIAN, ANALYTIC, LAPLACE])
@pytest.mark.parametrize("value", [-4.0, -0.3, 0.0, 1.0, 4.0])
def test_it_is_the_sign_of_the_value_with_noise(options: Options, value: float) -> None:
    # Two samples of as many signs: their difference has a standard error of at most (2 SIGNS) ** -0.5.
    assert abs(positive(options, value) - noisy(options, value)) < 5 * (2 * SIGNS) ** -0.5


@settings(deadline=None)
@given(st.floats(0.05, 0.95), st.sampled_from([1e-3, 1e-5, 1e-8]), st.floats(0.01, 100))
def test_the_noise_is_the_papers(epsilon: float, delta: float, clip: float) -> None:
    given: Options = {"epsilon": epsilon, "delta": delta, "clip": clip}
    assert DpSign(given).options.noise == pytest.approx(math.sqrt(2 * math.log(1.25 / delta)) * clip / epsilon)
    laplace = DpSign({**given, "delta": 0, "mechanism": "laplace"})
    assert laplace.options.noise == pytest.approx(clip / epsilon)


@pytest.mark.parametrize("ratio", [-2.5, -0.7, 0.1, 3.0])
def test_the_share_of_positive_signs_is_the_distribution_function(ratio: float) -> None:
    def share(options: Options) -> float:
        return positive(options, ratio * DpSign(options).options.noise)

    tolerance = 5 * 0.5 * SIGNS**-0.5
    assert share(GAUSSIAN) == pytest.approx(0.5 * (1 + math.erf(ratio / 2**0.5)), abs=tolerance)
    wanted = 0.5 + math.copysign(0.5, ratio) * (1 - math.exp(-abs(ratio)))
    assert share(LAPLACE) == pytest.approx(wanted, abs=tolerance)


def test_of_neighbours_the_log_odds_are_within_epsilon() -> None:
    # One element moved by the whole clip, from -C/2 to C/2, is what an example can do to it at most.
    for options in (GAUSSIAN, ANALYTIC, LAPLACE):
        high, low = positive(options, options["clip"] / 2), positive(options, -options["clip"] / 2, seed=2)
        slack = 10 * SIGNS**-0.5
        assert abs(math.log(high / low)) <= options["epsilon"] + slack
        assert abs(math.log((1 - low) / (1 - high))) <= options["epsilon"] + slack
        assert high > low


def density_ratio(value: Tensor, sigma: float, epsilon: float) -> float:
    """sup over sets of P(S) - e^epsilon Q(S) for N(1, sigma^2) against N(0, sigma^2), by a sum over a fine grid."""
    p = torch.exp(-((value - 1) ** 2) / (2 * sigma**2))
    q = torch.exp(-(value**2) / (2 * sigma**2))
    step = (value[1] - value[0]).item() / (sigma * math.sqrt(2 * math.pi))
    return (p - math.exp(epsilon) * q).clamp(min=0).sum().item() * step


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-3), (1.0, 1e-5), (8.0, 1e-6)])
def test_the_analytic_noise_is_the_least_that_keeps_the_promise(epsilon: float, delta: float) -> None:
    sigma = analytic_gaussian(epsilon, delta)
    grid = torch.linspace(-20 * sigma - 5, 20 * sigma + 5, 2_000_001, dtype=torch.float64)
    assert density_ratio(grid, sigma, epsilon) == pytest.approx(delta, rel=1e-3)
    assert density_ratio(grid, sigma * 0.99, epsilon) > delta * 1.005


def test_the_analytic_noise_is_less_than_the_classical() -> None:
    for epsilon in (0.1, 0.5, 0.99):
        given: Options = {"epsilon": epsilon, "delta": 1e-5, "clip": 3.0}
        analytic = DpSign({**given, "mechanism": "analytic-gaussian"})
        assert analytic.options.noise < DpSign(given).options.noise


def test_a_number_is_below_a_probability_exactly_however_small_that_is() -> None:
    digits, tail = torch.zeros(4, dtype=torch.float64), torch.tensor([0.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    asked = 0

    def further() -> Tensor:
        nonlocal asked
        asked += 1
        return tail

    # 4 x 2^-64 is above numbers of 64 bits that are 0 to 3, and so on, whatever float32 or 32 bits would hold.
    assert below(digits, torch.full((4,), 4 * 2.0**-64, dtype=torch.float64), further).tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert asked == 1
    assert below(digits, torch.full((4,), 3 * 2.0**-33, dtype=torch.float64), further).tolist() == [True] * 4
    halves = torch.full((2,), 2.0**31 - 1, dtype=torch.float64)
    assert below(halves + torch.tensor([0.0, 1.0]), torch.full((2,), 0.5, dtype=torch.float64), further).tolist() == [
        True,
        False,
    ]
    # What 64 bits do not decide takes 96.
    equal = iter([torch.tensor([4.0]), torch.tensor([7.0])])
    tiny = torch.tensor([4 * 2.0**-64 + 8 * 2.0**-96], dtype=torch.float64)
    assert below(digits[:1], tiny, lambda: next(equal).double()).tolist() == [True]


def test_near_the_floor_neighbours_have_log_odds_of_epsilon() -> None:
    """With 32 bits alone they were ln 2 = 0.69 apart at epsilon = 0.1."""
    scale = DpSign({"epsilon": 0.1, "delta": 0.0, "clip": 1.0, "mechanism": "laplace"}).options.noise
    sums = torch.tensor([-214.875, -215.875, -6900.0, -6901.0], dtype=torch.float64)
    first, second, third, fourth = laplace_tail(sums / scale).log().tolist()
    assert first - second == pytest.approx(0.1, abs=1e-12)
    assert third - fourth == pytest.approx(0.1, abs=1e-12)
    assert math.isfinite(float(laplace_tail(torch.tensor([1e30], dtype=torch.float64)).log()))


def test_nothing_but_the_bits_travels() -> None:
    data = encoded(DpSign(GAUSSIAN), TensorVector(torch.randn(1001)), CONTEXT)
    assert len(data) == DpSign(GAUSSIAN).encoded_bytes(1001) == 126


def test_the_noise_of_different_elements_is_independent() -> None:
    data = encoded(DpSign(GAUSSIAN), TensorVector(torch.zeros(600_000)), CONTEXT)
    signs = decoded(DpSign(GAUSSIAN), data, 600_000)
    for distance in (1, 4, 1 << 16, 1 << 18):
        kept = len(signs) - distance
        assert abs((signs[:kept] * signs[distance:]).mean()) < 5 * kept**-0.5


def test_its_randomness_is_a_secret_and_its_downlink_is_not() -> None:
    assert DpSign.private
    assert isinstance(DpSign(GAUSSIAN).downlink(), Sign)


def test_the_norm_to_clip_in_follows_the_mechanism() -> None:
    assert DpSign(GAUSSIAN).options.norm == DpSign(ANALYTIC).options.norm == "l2"
    assert DpSign(LAPLACE).options.norm == "l1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": 1.0}, r"exchange\.options\.epsilon: .*analytic-gaussian.*given: 1\.0"),
        ({"delta": 0.0}, r"exchange\.options\.delta: .*laplace"),
        ({"mechanism": "laplace"}, r"exchange\.options\.delta: Laplace noise gives delta = 0"),
        ({"delta": 1.0}, r"exchange\.options\.delta"),
        ({"clip": 0}, r"exchange\.options\.clip"),
        ({"epsilon": 0}, r"exchange\.options\.epsilon"),
        ({"mechanism": "none"}, r"exchange\.options\.mechanism: .*'gaussian'"),
    ],
)
def test_impossible_options_are_refused_by_name(changes: Options, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        DpSign({**GAUSSIAN, **changes})


def test_there_is_no_default_for_how_private_it_is() -> None:
    with pytest.raises(SpecError, match=r"epsilon: this key is required.*delta.*clip"):
        DpSign()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_not_encoded(value: float) -> None:
    for codec in (DpSign(GAUSSIAN), DpSign(LAPLACE)):
        with pytest.raises(TaskError, match="not finite"):
            encoded(codec, TensorVector(torch.tensor([1.0, value, 2.0])), CONTEXT)
