"""Pre-aggregators before a rule: the rule sees rows X' = W X that are never made, and verdicts are on the nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator, PreAggregator, Verdict, word_for
from covey.aggregation.matrix import GRAM_COLUMNS, Row, UpdateMatrix
from covey.errors import LayoutError, RunFailed, SpecError
from covey.vectors import ComputedVector, LinearCombination, spans


class MixedReader(ComputedVector):
    """Random access to one mixed row, computed where it is asked for.

    Args:
        matrix: n rows.
        weights: float64 `[n]`.
    """

    def __init__(self, matrix: UpdateMatrix, weights: Tensor) -> None:
        super().__init__(matrix.d)
        self._matrix, self._weights = matrix, weights

    def decode(self, columns: slice, out: Tensor) -> None:
        """Write elements `columns` of the weighted sum into `out`."""
        self._matrix.weighted_sum(self._weights).read(columns, out)


class MixedMatrix(UpdateMatrix):
    """The rows X' = W X of a matrix X, without making them.

    Slabs are mixed when they are filled; G' = W G W^T; w^T X' = (W^T w)^T X. A mixed row's weight is the mixed weight
    of the rows that it is made of, scaled so that they sum to one: rows of equal weight give mixed rows of equal
    weight. A row that was clipped keeps its weight.

    Distances that follow from W G W^T are less precise than those of an `UpdateMatrix`, which measures near rows again:
    where rows' squared distance is about 1e-3 of their squared norms, by 4e-4 of it.

    Args:
        inner: n rows, X.
        mixing: W, float64 `[m, n]`.
        nodes: Names of the mixed rows; by default the inner rows' if m = n, else `bucket-0`, `bucket-1`, ...
        weighing: How the weights are mixed, float64 `[m, n]`: `mixing` without what only clips; by default `mixing`.

    Raises:
        LayoutError: W has not n columns.
    """

    def __init__(
        self, inner: UpdateMatrix, mixing: Tensor, nodes: Sequence[str] | None = None, weighing: Tensor | None = None
    ) -> None:
        if mixing.dim() != 2 or mixing.shape[1] != inner.n:
            raise LayoutError(f"{inner.n} rows cannot be mixed by weights of shape {tuple(mixing.shape)}")
        names = nodes if nodes is not None else _names(inner, len(mixing))
        shares = (mixing if weighing is None else weighing) @ inner.weights
        total = shares.sum()
        shares = shares / total if total > 0 else shares
        readers = (MixedReader(inner, row) for row in mixing)
        super().__init__([Row(*row) for row in zip(names, shares.tolist(), readers, strict=True)], inner.layout)
        self._inner, self._mixing, self._single = inner, mixing, mixing.float()
        self._scratch = torch.empty(0)

    def fill(self, columns: slice, out: Tensor) -> None:
        """Mix `columns` of every row into `out`, float32 `[m, b]`."""
        for wide in spans(columns.stop - columns.start, self._inner.wide):
            width = wide.stop - wide.start
            if len(self._scratch) < self._inner.n * width:
                self._scratch = torch.empty(self._inner.n * width)
            slab = self._scratch[: self._inner.n * width].view(self._inner.n, width)
            self._inner.fill(slice(columns.start + wide.start, columns.start + wide.stop), slab)
            for part in spans(width, GRAM_COLUMNS):
                torch.mm(self._single, slab[:, part], out=out[:, wide][:, part])

    def gram(self) -> Tensor:
        """W G W^T, float64 `[m, m]`."""
        mixed = self._mixing @ self._inner.gram() @ self._mixing.T
        return torch.tril(mixed) + torch.tril(mixed, -1).T

    def squared_norms(self) -> Tensor:
        """The diagonal of `gram`, float64 `[m]`."""
        return self.gram().diagonal().clamp(min=0)

    def products(self, vector: Tensor) -> Tensor:
        """W X v, float64 `[m]`; see `UpdateMatrix.products`."""
        return self._mixing @ self._inner.products(vector)

    def extended(self, vectors: Sequence[Tensor]) -> UpdateMatrix:
        """The mixed rows and, unmixed, further vectors; see `UpdateMatrix.extended`."""
        m, n, k = self.n, self._inner.n, len(vectors)
        mixing = torch.zeros(m + k, n + k, dtype=torch.float64)
        mixing[:m, :n], mixing[m:, n:] = self._mixing, torch.eye(k)
        inner = self._inner.extended(vectors)
        return MixedMatrix(inner, mixing, [*self.nodes, *inner.nodes[self._inner.n :]])

    def weighted_sum(self, weights: Tensor) -> LinearCombination:
        """sum_i weights[i] x mixed row i, from the unmixed rows in one pass."""
        if weights.shape != (self.n,):
            raise LayoutError(f"{self.n} mixed rows need {self.n} weights, not {tuple(weights.shape)}")
        return self._inner.weighted_sum(self._mixing.T @ weights)


def _names(inner: UpdateMatrix, m: int) -> tuple[str, ...]:
    return inner.nodes if m == inner.n else tuple(f"bucket-{i}" for i in range(m))


class Composed(Aggregator):
    """A rule behind pre-aggregators: W_k ... W_1 X instead of X.

    It is used like the rule itself: options, state, `needs_root`, `needs_losses`, `votes` and `weighs` are the rule's;
    n and f are checked on the rows that the rule gets.

    Verdicts are mapped back to the nodes. A node's weight is its effective share (W^T w)_j of the rule's shares w; it
    is accepted if any mixed row that it is part of is. Where every W is square, row i still stands for node i, and the
    node gets that row's numbers. Where rows were put together, it gets its bucket's numbers and, as `bucket`, the
    bucket's index: a bucket's verdict says nothing of a single node in it, and a rejection's reason says so.

    Args:
        pre: Applied in this order.
        rule: What sees the mixed rows.

    Raises:
        SpecError: The rule reads signs, which are lost in a mean.
    """

    def __init__(self, pre: Sequence[PreAggregator], rule: Aggregator) -> None:
        if pre and rule.votes:
            raise SpecError(
                f"aggregation.pre: {type(rule).__name__} reads signs, and mixed updates have none; leave it out"
            )
        self.pre, self.rule = tuple(pre), rule
        self.options = rule.options
        for name in ("state_names", "needs_root", "needs_losses", "votes", "weighs"):
            setattr(self, name, getattr(rule, name))

    def min_updates(self) -> int:
        """What must come in so that the rule gets what it needs."""
        needed = self.rule.min_updates()
        for pre in reversed(self.pre):
            needed = pre.rows_needed(needed)
        return needed

    def refusal(self, n: int) -> str:
        """The rule's reason against as many rows as come of n updates."""
        for pre in self.pre:
            n = max((rows for rows in range(n + 1) if pre.rows_needed(rows) <= n), default=0)
        return self.rule.refusal(n)

    def require(self, updates: UpdateMatrix) -> None:
        """Refuse a round that has too few updates.

        Raises:
            RunFailed: Fewer than `min_updates()` rows.
        """
        if updates.n < self.min_updates():
            name = " before ".join(type(part).__name__ for part in (*self.pre, self.rule))
            raise RunFailed(f"{name} needs at least {self.min_updates()} updates, the round has {updates.n}")

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """The rule's result on the mixed rows, float32 `[d]`, with a verdict for each node.

        Raises:
            RunFailed: Too few updates, for a pre-aggregator or for the rule.
        """
        self.require(updates)
        alone = torch.eye(updates.n, dtype=torch.float64)
        seen, mixed = updates, _Mixed(alone, alone, list(range(updates.n)), True)
        for pre in self.pre:
            mixed = mixed.then(pre.weights(seen, context))
            seen = MixedMatrix(updates, mixed.mixing, weighing=mixed.weighing)
        result = self.rule.aggregate(seen, state, context)
        return replace(result, verdicts=mixed.verdicts(updates.nodes, result.verdicts))


@dataclass(frozen=True)
class _Mixed:
    """How the rows that the rule sees came about: W `[m, n]`, and for each node the row that stands for it.

    `weighing` is W without the steps that only clip (of a diagonal W). `own` says that no rows were put together: row i
    stands for node i alone.
    """

    mixing: Tensor
    weighing: Tensor
    home: list[int]
    own: bool

    def then(self, mixing: Tensor) -> _Mixed:
        """With one more W after it."""
        square = mixing.shape[0] == mixing.shape[1]
        if square and torch.equal(mixing, mixing.diagonal().diag()):
            return replace(self, mixing=mixing @ self.mixing)
        weighing = mixing @ self.weighing
        if square:
            return replace(self, mixing=mixing @ self.mixing, weighing=weighing)
        home = mixing.argmax(0)[self.home].tolist()
        return _Mixed(mixing @ self.mixing, weighing, home, False)

    def verdicts(self, nodes: Sequence[str], of_rows: Sequence[Verdict]) -> tuple[Verdict, ...]:
        """The nodes' verdicts, from those on the mixed rows."""
        weights = torch.tensor([verdict.share for verdict in of_rows], dtype=torch.float64)
        shares = (self.mixing.T @ weights).clamp(0, 1).tolist()
        taken = torch.tensor([verdict.accepted for verdict in of_rows])
        parts = ((self.mixing > 0) & taken[:, None]).any(0).tolist()
        return tuple(
            self._verdict(node, j, of_rows[self.home[j]], shares[j] if parts[j] else 0.0, accepted=parts[j])
            for j, node in enumerate(nodes)
        )

    def _verdict(self, node: str, j: int, of_row: Verdict, share: float, *, accepted: bool) -> Verdict:
        numbers, reason = dict(of_row.numbers), "" if accepted else of_row.reason or "nothing of it is left"
        if not self.own:
            numbers["bucket"] = float(self.home[j])
            reason = reason and f"of its bucket, not of this update alone: {reason}"
        return Verdict(node, word_for(accepted), reason=reason, share=share, numbers=numbers)
