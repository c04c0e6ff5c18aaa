"""The operations of gossip protocols over blocks: those of whole arrays in float64."""

import numpy as np
import pytest
import torch

from covey.testing.swarm_ports import ArrayAlgebra
from covey.vectors import BLOCK_ELEMENTS, TensorVector
from covey.worker.execute.algebra import BlockAlgebra

D = 2 * BLOCK_ELEMENTS + 5


@pytest.fixture(scope="module")
def arrays() -> list[np.ndarray]:
    return list(np.random.default_rng(1).standard_normal((5, D)).astype(np.float32))


@pytest.mark.parametrize("threads", [1, 2])
def test_distances_are_those_of_whole_arrays_whatever_the_number_of_threads(
    arrays: list[np.ndarray], threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        first, *others = [TensorVector(torch.from_numpy(array)) for array in arrays]
        distances = BlockAlgebra(D).distances(first, others)
    finally:
        torch.set_num_threads(before)
    whole = [float(np.linalg.norm(array.astype(np.float64) - arrays[0])) for array in arrays[1:]]
    assert distances == pytest.approx(whole, rel=1e-12)
    assert distances == BlockAlgebra(D).distances(first, others)


def test_a_trimmed_mean_is_that_of_whole_arrays(arrays: list[np.ndarray]) -> None:
    vectors = [TensorVector(torch.from_numpy(array)) for array in arrays]
    for trimmed in (0, 1, 2):
        mean = BlockAlgebra(D).trimmed_mean(vectors, trimmed).dense().numpy()
        np.testing.assert_allclose(mean, ArrayAlgebra().trimmed_mean(arrays, trimmed), rtol=1e-5, atol=1e-6)
    vectors[0] = TensorVector(torch.full((D,), 3e38))
    assert BlockAlgebra(D).trimmed_mean(vectors, 1).dense().abs().max() < 10


def test_distances_of_the_largest_numbers_do_not_overflow() -> None:
    ends = [TensorVector(torch.full((D,), value)) for value in (-3e38, 3e38)]
    (distance,) = BlockAlgebra(D).distances(ends[0], ends[1:])
    assert distance == pytest.approx(6e38 * np.sqrt(D), rel=1e-6)
