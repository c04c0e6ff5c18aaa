from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation.covariance import centred_products, principal


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 20))
def test_small_matrices_stand_for_the_covariance(seed: int, n: int, d: int) -> None:
    random = np.random.default_rng(seed)
    rows, shares = random.normal(size=(n, d)) + 5, random.random(n) * random.integers(0, 2, n)
    shares[0] += 0.1
    shares /= shares.sum()
    distances = ((rows[:, None] - rows[None]) ** 2).sum(2)
    centred = rows - shares @ rows
    assert centred_products(distances, shares) == pytest.approx(centred @ centred.T, abs=1e-9)
    values, vectors = np.linalg.eigh((shares[:, None] * centred).T @ centred)
    largest, along = principal(distances, shares)
    assert largest == pytest.approx(max(values[-1], 0), abs=1e-9)
    if values[-1] > 1e-6 and (d == 1 or values[-2] < 0.99 * values[-1]):
        assert along == pytest.approx((centred @ vectors[:, -1]) ** 2, rel=1e-5, abs=1e-7)


def test_rows_that_do_not_differ_have_no_direction() -> None:
    largest, along = principal(np.zeros((3, 3)), np.full(3, 1 / 3))
    assert largest == 0
    assert along.tolist() == [0, 0, 0]
