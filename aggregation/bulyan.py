"""Bulyan: a set chosen by repeated Krum, and in each coordinate the mean of those of it nearest to the median."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator, ByzantineOptions, Verdict
from covey.aggregation.gram import numbers_of, squared_distances
from covey.aggregation.krum import krum_scores
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.order_statistics import NarrowBlocks, Network, mean, network, select

Distances = NDArray[np.float64]
_REASON = "not among the {theta} updates that repeated Krum chose"


class Bulyan(Aggregator):
    """Krum chooses theta = n - 2f updates one by one; then trimming around the median in each coordinate.

    El Mhamdi, Guerraoui, Rouault, "The Hidden Vulnerability of Distributed Learning in Byzantium" (ICML 2018, arXiv
    1802.07927), section 4. Assumes n >= 4f + 3. After each choice the chosen update is taken away, and Krum's scores
    are those of the ones left (n' - f - 2 neighbours of n'). The direction is in each coordinate the mean of the beta =
    theta - 2f chosen values nearest to the median of the chosen.

    The last two choices are among fewer than the 2f + 3 updates that Krum needs, so updates that are near one another
    by arrangement can be chosen there; against them stands the second step, which only f of the theta can try.

    What the paper leaves open: fewer than one neighbour counts as one (the last choices, where n' < f + 3). Equal
    scores: the update with the least sum of squared distances to all that are left is chosen, then the earlier one.
    With an even theta the median is the mean of the two middle values. Equally near: the lesser value is taken. Other
    libraries choose theta = n - 2f - 2, or score only once.

    The updates' weights have no part in it. A chosen update's weight is 1 / theta; `score` is the Krum score among all
    n updates.
    """

    class Options(ByzantineOptions):
        """Options of Bulyan."""

    options: Options

    def min_updates(self) -> int:
        """4f + 3."""
        return 4 * self.options.f + 3

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """The trimmed mean of the chosen, float32 `[d]`.

        Raises:
            RunFailed: Fewer than `min_updates()` rows.
        """
        self.require(updates)
        n, f = updates.n, self.options.f
        theta = n - 2 * f
        distances = squared_distances(updates.gram())
        chosen = repeated_krum(distances.numpy(), theta, f)
        sort = network(theta, frozenset(range(theta)), ordered=True)
        direction = NarrowBlocks(updates, lambda slab: near_median(slab, chosen, sort, theta - 2 * f))
        numbers = numbers_of(score=krum_scores(distances, n - f - 2))
        verdicts = [
            Verdict(node, "accepted", share=1 / theta, numbers=numbers[i])
            if i in chosen
            else Verdict(node, "rejected", _REASON.format(theta=theta), numbers=numbers[i])
            for i, node in enumerate(updates.nodes)
        ]
        return Aggregate(direction, tuple(verdicts))


def repeated_krum(distances: Distances, count: int, f: int) -> list[int]:
    """The rows that Krum chooses one after the other, in ascending order of row.

    Args:
        distances: Squared, float64 `[n, n]`, diagonal zero.
        count: How many are chosen, at most n.
        f: Each score sums over all but f + 2 of the rows left (at least over one neighbour).
    """
    left = np.arange(len(distances))
    if count == len(left):
        return left.tolist()
    # Column 0 is the row itself, even where another row is identical to it.
    others = distances - np.eye(len(left))
    order = np.argsort(others, axis=1, kind="stable")[:, 1:]
    ascending = np.take_along_axis(distances, order, axis=1)
    chosen = []
    for _ in range(count):
        neighbours = max(len(left) - f - 2, 1)
        scores, sums = ascending[:, :neighbours].sum(axis=1), ascending.sum(axis=1)
        best = int(np.lexsort((sums, scores))[0])
        chosen.append(int(left[best]))
        order, ascending = np.delete(order, best, axis=0), np.delete(ascending, best, axis=0)
        # Each row has the chosen one exactly once among its others.
        stay = order != left[best]
        left = np.delete(left, best)
        order, ascending = (each[stay].reshape(len(left), -1) for each in (order, ascending))
    return sorted(chosen)


def near_median(slab: Tensor, rows: list[int], sort: Network, beta: int) -> Tensor:
    """In each column the mean of the `beta` values nearest to the median of some rows, float32 `[b]`.

    In ascending order these are neighbours of one another. They begin after y_s if and only if y_(s + beta) is nearer
    to the median than y_s, which is true up to some s and false from there on. So y_s or y_(s + beta) is in, never
    both, and each such pair gives one term: nothing huge is ever added and subtracted again.

    Args:
        slab: float32 `[n, b]`, overwritten.
        rows: The theta rows that count.
        sort: The network that sorts theta values.
        beta: At least 1, at most theta.
    """
    ascending = select(slab, sort, rows)
    theta = len(ascending)
    middle = mean([ascending[(theta - 1) // 2], ascending[theta // 2]]).numpy()
    terms = ascending[:beta]
    with np.errstate(over="ignore"):
        for s in range(theta - beta):
            nearer = ascending[s + beta] - middle < middle - ascending[s]
            terms[s % beta] = np.where(nearer, ascending[s + beta], terms[s % beta])
    return mean(terms)
