"""Noise that needs a key: the same from any element on, and distributed as it says."""

from __future__ import annotations

import itertools

import pytest
import torch

from covey.vectors.secret_noise import NormalVector, chosen, normal, subkey

KEY = subkey(bytes(32), "test")
N = 200_000


def test_noise_is_normal_as_far_as_its_moments_and_tails_tell() -> None:
    x = normal(KEY, 0, N)
    assert x.mean().abs() < 0.01
    assert (x.square().mean() - 1).abs() < 0.02
    assert (x**4).mean() == pytest.approx(3.0, abs=0.1)
    for bound, share in ((1.0, 0.3173), (2.0, 0.0455), (3.0, 0.0027)):
        assert (x.abs() > bound).double().mean().item() == pytest.approx(share, rel=0.15)
    assert (x > 0).double().mean().item() == pytest.approx(0.5, abs=0.01)
    assert torch.isfinite(x).all()
    assert (x[1:] * x[:-1]).mean().abs() < 0.01


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (1, 2), (7, 8), (2, 1001), (999, 5000)])
def test_an_element_is_the_same_however_the_vector_is_read(start: int, stop: int) -> None:
    vector = NormalVector(KEY, 5000)
    whole = vector.read(slice(0, 5000)).clone()
    assert torch.equal(vector.read(slice(start, stop)), whole[start:stop])
    assert torch.equal(normal(KEY, start, stop - start), normal(KEY, 0, 5000)[start:stop])


def test_another_key_or_purpose_gives_other_noise() -> None:
    others = [normal(key, 0, 100) for key in (subkey(bytes(32), "other"), subkey(b"1" + bytes(31), "test"), KEY)]
    assert torch.equal(others[2], normal(KEY, 0, 100))
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(others))


def test_each_place_is_chosen_by_itself() -> None:
    sizes = torch.tensor([len(chosen(subkey(KEY, str(i)), 1000, 0.1)) for i in range(400)]).double()
    assert sizes.mean().item() == pytest.approx(100, abs=2)
    assert sizes.var().item() == pytest.approx(90, rel=0.3)  # binomial, so not a fixed number
    assert chosen(KEY, 5, 1.0).tolist() == [0, 1, 2, 3, 4]
    assert (chosen(KEY, 1000, 0.5).diff() > 0).all()
