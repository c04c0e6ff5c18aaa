"""Decentralized parallel stochastic gradient descent."""

from __future__ import annotations

from covey.gossip.protocols.receiving import Receiving


class DecentralizedSGD(Receiving):
    """x_i <- sum_j W_ij y_j with y_j = x_j + what local training did, and W symmetric and doubly stochastic.

    Source: Lian et al., "Can Decentralized Algorithms Outperform Centralized Algorithms? A Case Study for Decentralized
    Parallel Stochastic Gradient Descent" (NeurIPS 2017), algorithm 1. There the gradient is added to the mean of the
    models before it; here training comes first and its result is averaged too ("adapt, then combine"). In both the mean
    over all nodes moves by the mean of their changes.

    For that W has to be doubly stochastic, not symmetric: equal weights on circulant edges, such as those of topology
    "exponential", are taken too.
    """

    needs_doubly_stochastic = takes_circulant = True
    extra_models = 1.0
