"""The updates of a round as a matrix, n x d, that is never n x d in memory.

Rows are encoded deltas in mapped files, in node-id order. What a rule takes from them: slabs of columns, the
Gram matrix, weighted sums, single rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from covey.errors import LayoutError
from covey.layout import Layout
from covey.vectors import BLOCK_ELEMENTS, LinearCombination, TensorVector, Vector, all_finite, spans

SLAB_COLUMNS = 1 << 16
GRAM_COLUMNS = 1 << 14
"""Columns of one product of `gram`: 20 rows are then 1.3 MB, about a core's second-level cache."""
GRAM_ROWS = 16
"""Rows of one product of `gram`, of which only the lower half is computed. Measured with n = 20 and 100: 0.8 and 0.7
of the time of the whole product; 8 and 32 rows take longer."""
MANY_ROWS = 64
"""With more rows a slab of `SLAB_COLUMNS` is more than 16 MiB."""
SMALL = 1e-30
"""A mean of products below which float32 may have lost some of them, as squares of elements below 1e-19 are."""
CLOSE = 1e-3
"""Rows whose squared distance is below this part of their squared norms are measured again from differences:
the distance that follows from float32 products has lost half of its digits there."""


@dataclass(frozen=True)
class Row:
    """One node's update.

    Attributes:
        node: The node's id.
        weight: Its effective share of the round (see `covey.aggregation.weights`).
        reader: Its elements, decoded on demand.
    """

    node: str
    weight: float
    reader: Vector


def finite(row: Row, width: int = BLOCK_ELEMENTS) -> bool:
    """Whether every element of a row is a finite number: what it must be *before* it comes into a matrix."""
    return all_finite(row.reader, width)


class UpdateMatrix:
    """n rows of d float32, read where they lie.

    Args:
        rows: In node-id order; a row must have only finite elements (`finite`).
        layout: Of the part that a row is, for `slice`.

    Raises:
        LayoutError: Rows of different lengths, two of one node, or a layout of another size.
    """

    def __init__(self, rows: Sequence[Row], layout: Layout | None = None) -> None:
        self.rows = tuple(rows)
        self.layout = layout
        self.n = len(self.rows)
        self.d = self.rows[0].reader.d if self.rows else 0
        for row in self.rows:
            if row.reader.d != self.d:
                raise LayoutError(f"the row of {row.node!r} has {row.reader.d} elements, others have {self.d}")
        if len(set(self.nodes)) != self.n:
            raise LayoutError("a node has two rows; a matrix takes one update a node")
        if layout is not None and self.rows and layout.numel != self.d:
            raise LayoutError(f"the rows have {self.d} elements, their layout has {layout.numel}")

    @classmethod
    def of(
        cls,
        tensor: Tensor,
        nodes: Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
        layout: Layout | None = None,
    ) -> UpdateMatrix:
        """A matrix over a tensor.

        Args:
            tensor: float32 `[n, d]`; not copied.
            nodes: Ids; by default `node-0`, `node-1`, ...
            weights: By default all `1 / n`.
            layout: For `slice`.
        """
        if tensor.dim() != 2 or tensor.dtype != torch.float32:
            raise LayoutError(f"rows are float32 [n, d], not {tensor.dtype} {tuple(tensor.shape)}")
        n = len(tensor)
        ids = nodes if nodes is not None else [f"node-{i}" for i in range(n)]
        shares = weights if weights is not None else [1.0 / max(n, 1)] * n
        rows = [Row(*row) for row in zip(ids, shares, map(TensorVector, tensor), strict=True)]
        return cls(rows, layout)

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """The nodes' ids, in row order."""
        return tuple(row.node for row in self.rows)

    @cached_property
    def weights(self) -> Tensor:
        """The rows' weights, float64 `[n]`."""
        return torch.tensor([row.weight for row in self.rows], dtype=torch.float64)

    @property
    def wide(self) -> int:
        """Columns to decode at once for products: many, for fewer calls, unless that would be many megabytes."""
        return SLAB_COLUMNS if self.n <= MANY_ROWS else GRAM_COLUMNS

    def fill(self, columns: slice, out: Tensor) -> None:
        """Decode `columns` of every row into `out`, float32 `[n, b]`."""
        for row, target in zip(self.rows, out, strict=True):
            row.reader.read(columns, target)

    def blocks(self, width: int = SLAB_COLUMNS) -> Iterator[tuple[slice, Tensor]]:
        """All columns, `width` at a time: (columns, float32 `[n, b]`), in one slab that is used again."""
        memory = torch.empty(self.n * min(width, self.d))
        for columns in spans(self.d, width):
            slab = memory[: self.n * (columns.stop - columns.start)].view(self.n, -1)
            self.fill(columns, slab)
            yield columns, slab

    def gram(self) -> Tensor:
        """All scalar products of rows, float64 `[n, n]`, symmetric.

        Products are float32 over `GRAM_COLUMNS`, their sums float64 (both float64 where float32 overflows, or where a
        row is so short that its squares underflow).
        Rows are deltas, so this is relative to the base model, and never to one of the rows: an attacker's
        huge row as the reference would destroy the precision of all others. The squared distance of rows i
        and j is `g[i, i] + g[j, j] - 2 g[i, j]`; where that is below `CLOSE` of their squared norms it is
        measured again in float64 from differences of near rows, and `g[i, j]` is set to give it.

        Rows are read for the first call only; each call gives a matrix of its own.
        """
        return self._gram.clone()

    @cached_property
    def _gram(self) -> Tensor:
        total = self._grams(torch.float32)
        if self._imprecise(total, total.diagonal()):
            total = self._grams(torch.float64)
        if groups := _close_groups(total):
            self._sharpen(total, groups)
        return total

    def _imprecise(self, total: Tensor, each: Tensor) -> bool:
        """Whether float32 did not hold the products that were summed up to `total`.

        Args:
            total: Sums over all columns, float64.
            each: Those of them, `[n]`, that are far from zero unless row i is all but zero.
        """
        if not torch.isfinite(total).all():
            return True
        small = (each.abs() < self.d * SMALL).nonzero().flatten().tolist()
        return any(each[i] != 0 or not self._is_zero(i) for i in small)

    def _is_zero(self, i: int) -> bool:
        reader = self.rows[i].reader
        return not any(bool(reader.read(columns).any()) for columns in spans(self.d, BLOCK_ELEMENTS))

    def _grams(self, dtype: torch.dtype) -> Tensor:
        total = torch.zeros(self.n, self.n, dtype=torch.float64)
        product = torch.zeros(self.n, self.n, dtype=dtype)
        even = self.n // 4 * 4  # the matrix product is slow where the number of rows is odd
        pairs = [(a, b) for a in spans(even, GRAM_ROWS) for b in (slice(0, a.start), a) if b.stop]
        for _, slab in self.blocks(self.wide):
            for part in spans(slab.shape[1], GRAM_COLUMNS):
                rows = slab[:, part].to(dtype)
                for a, b in pairs:
                    torch.mm(rows[a], rows[b].T, out=product[a, b])
                for i in range(even, self.n):
                    torch.mv(rows[: i + 1], rows[i], out=product[i, : i + 1])
                total += product
        return torch.tril(total) + torch.tril(total, -1).T

    def _sharpen(self, gram: Tensor, groups: list[list[int]]) -> None:
        """Measure the distances within groups of near rows from their differences to the group's first row."""
        near = [torch.zeros(len(group), len(group), dtype=torch.float64) for group in groups]
        for _, slab in self.blocks(GRAM_COLUMNS):
            for group, products in zip(groups, near, strict=True):
                difference = slab[group].double() - slab[group[0]].double()
                products.addmm_(difference, difference.T)
        for group, products in zip(groups, near, strict=True):
            own, squared = products.diagonal(), gram.diagonal()[group]
            distances = own[:, None] + own[None, :] - products - products.T
            rows = torch.tensor(group)
            better = (squared[:, None] + squared[None, :] - distances) / 2
            gram[rows[:, None], rows[None, :]] = torch.where(torch.eye(len(group)) > 0, squared, better)

    def squared_norms(self) -> Tensor:
        """The rows' squared l2 norms, float64 `[n]`: the diagonal of `gram`, for n instead of n^2 products."""
        total = self._squares(torch.float32)
        return self._squares(torch.float64) if self._imprecise(total, total) else total

    def _squares(self, dtype: torch.dtype) -> Tensor:
        total = torch.zeros(self.n, dtype=torch.float64)
        for _, slab in self.blocks(self.wide):
            for part in spans(slab.shape[1], GRAM_COLUMNS):
                total += torch.linalg.vector_norm(slab[:, part], dim=1, dtype=dtype).double().square()
        return total

    def products(self, vector: Tensor) -> Tensor:
        """The scalar product of every row with a vector of float32 `[d]`: float64 `[n]`, as precise as `gram`.

        Raises:
            LayoutError: The vector has another length.
        """
        if vector.shape != (self.d,):
            raise LayoutError(f"rows of {self.d} elements cannot be multiplied by {tuple(vector.shape)}")
        total = self._products_with(vector, torch.float32)
        small = self.d * SMALL
        short = torch.linalg.vector_norm(vector, dtype=torch.float64).square() < small
        # A product of exactly zero is one of sparse rows, as a rule.
        if short or not torch.isfinite(total).all() or ((total != 0) & (total.abs() < small)).any():
            return self._products_with(vector, torch.float64)
        return total

    def _products_with(self, vector: Tensor, dtype: torch.dtype) -> Tensor:
        total = torch.zeros(self.n, dtype=torch.float64)
        for columns, slab in self.blocks(self.wide):
            for part in spans(slab.shape[1], GRAM_COLUMNS):
                total += (slab[:, part].to(dtype) @ vector[columns][part].to(dtype)).double()
        return total

    def extended(self, vectors: Sequence[Tensor]) -> UpdateMatrix:
        """This matrix with vectors (float32 `[d]`) that no node sent as further rows, of weight zero.

        For rules that compare the updates with something else, such as the last round's result.

        Raises:
            LayoutError: A vector has another length.
        """
        extra = [Row(f"(vector {i})", 0.0, TensorVector(vector)) for i, vector in enumerate(vectors)]
        return UpdateMatrix([*self.rows, *extra], self.layout)

    def weighted_sum(self, weights: Tensor) -> LinearCombination:
        """sum_i weights[i] x row i, in row order; `weights` is float64 `[n]`, and need not sum to one.

        Rows are read where they lie, once each; a row of weight zero is not read at all.

        Raises:
            LayoutError: Another number of weights than of rows.
        """
        if weights.shape != (self.n,):
            raise LayoutError(f"{self.n} rows need {self.n} weights, not {tuple(weights.shape)}")
        return LinearCombination([(row.reader, w) for row, w in zip(self.rows, weights.tolist(), strict=True)], self.d)

    def row(self, i: int) -> Tensor:
        """Row i, float32 `[d]`, read-only: a view where it is raw, else valid until the row is read again."""
        return self.rows[i].reader.read(slice(0, self.d))

    def dense(self) -> Tensor:
        """All rows in new memory, float32 `[n, d]`: for small models and tests."""
        out = torch.empty(self.n, self.d)
        self.fill(slice(0, self.d), out)
        return out

    def signs(self, columns: slice) -> Tensor:
        """The rows' signs on `columns`, uint8 `[n, ceil(b / 8)]`: lowest bit first, set where value >= 0.

        Zero counts as positive, since one bit has no third value; the bits past b are zero. `columns.start` is
        a multiple of 8. Rows whose codec is one of signs are not unpacked.
        """
        width = columns.stop - columns.start
        out = torch.empty(self.n, -(-width // 8), dtype=torch.uint8)
        for row, target in zip(self.rows, out, strict=True):
            target.copy_(row.reader.signs(columns))
        return out

    def slice(self, i: int, pattern: str) -> Tensor:
        """The elements of row i in tensors whose names match a pattern, float32 `[k]`, in layout order.

        Args:
            i: The row.
            pattern: A regular expression, searched in the names.

        Raises:
            LayoutError: The matrix was made without a layout.
        """
        if self.layout is None:
            raise LayoutError("this matrix has no layout; give one to slice its rows by tensor names")
        wanted = {t.name for t in self.layout.matching(pattern).tensors}
        pieces, start = [torch.empty(0)], 0
        for tensor in self.layout.tensors:
            if tensor.name in wanted:
                pieces.append(self.rows[i].reader.read(slice(start, start + tensor.numel)).clone())
            start += tensor.numel
        return torch.cat(pieces)


def _close_groups(gram: Tensor) -> list[list[int]]:
    """The rows that are near one another, as groups (connected by nearness) of at least two, in row order."""
    squared = gram.diagonal()
    distances = squared[:, None] + squared[None, :] - 2 * gram
    near = distances < CLOSE * torch.minimum(squared[:, None], squared[None, :])
    groups: list[list[int]] = []
    left = set(range(len(gram)))
    while left:
        group, edge = set[int](), {min(left)}
        while edge:
            group |= edge
            edge = {j for i in edge for j in near[i].nonzero().flatten().tolist()} - group
        left -= group
        if len(group) > 1:
            groups.append(sorted(group))
    return groups
