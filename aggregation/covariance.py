"""Eigenvalues of the rows' covariance from their distances: n x n matrices stand for d x d ones.

For rows x_i with shares p_i that sum to one, and mu = sum_i p_i x_i, the covariance sum_i p_i (x_i - mu)(x_i - mu)^T
(`[d, d]`) has the same positive eigenvalues as P^(1/2) K P^(1/2) (`[n, n]`), where K has the scalar products of the
centred rows and P = diag(p). K follows from the squared distances D: K = -1/2 (I - 1 p^T) D (I - p 1^T), so what all
rows have in common costs no digits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def centred_products(distances: Matrix, shares: Matrix) -> Matrix:
    """K: the scalar products of rows less their mean, float64 `[..., n, n]`.

    Args:
        distances: Squared l2 distances, float64 `[..., n, n]`, symmetric.
        shares: float64 `[n]`, not negative, sum one: what the mean is of.
    """
    to_mean = distances @ shares
    return (to_mean[..., :, None] + to_mean[..., None, :] - distances - (to_mean @ shares)[..., None, None]) / 2


def principal(distances: Matrix, shares: Matrix) -> tuple[float, Matrix]:
    """The largest eigenvalue of the covariance, and how far each row is from the mean along its eigenvector.

    Args:
        distances: As above, `[n, n]`.
        shares: As above.

    Returns:
        lambda, and ((x_i - mu)^T v)^2, float64 `[n]`; all zero where no two rows with a share differ.
    """
    products, roots = centred_products(distances, shares), np.sqrt(shares)
    values, vectors = np.linalg.eigh(roots[:, None] * products * roots)
    largest = float(values[-1])
    if not largest > 0:
        return 0.0, np.zeros(len(shares))
    # v = sum_i sqrt(p_i) u_i (x_i - mu) / sqrt(lambda), for u the eigenvector of the n x n matrix.
    along: Matrix = (products @ (roots * vectors[:, -1])) ** 2 / largest
    return largest, along
