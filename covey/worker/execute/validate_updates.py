"""Which updates of a round the rule gets to see: those whose files hold what they must, all of it finite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from covey.aggregation.buffers import finite_buffers
from covey.aggregation.matrix import Row, finite
from covey.aggregation.weights import effective_shares
from covey.codecs.contract import Codec
from covey.errors import LayoutError, LimitExceeded
from covey.layout import Layout
from covey.vectors import ComputedVector, Vector
from covey.worker.files.mapped import MappedModel, map_bytes
from covey.worker.jobs import messages as m

NON_FINITE = "non-finite"


@dataclass(frozen=True)
class Admitted:
    """An update with nothing against it so far.

    Attributes:
        node: The node's id.
        weight: As declared.
        reader: Its vector, as something to be added to the base.
        buffers: Its raw buffers, uint8 `[layout.nbytes]`.
    """

    node: str
    weight: float
    reader: Vector
    buffers: Tensor


class Difference(ComputedVector):
    """Parameters as they were sent, read as deltas from the base."""

    def __init__(self, sent: Vector, base: MappedModel) -> None:
        super().__init__(sent.d)
        self._sent, self._base = sent, base

    def decode(self, columns: slice, out: Tensor) -> None:
        """Sent minus base."""
        torch.sub(self._sent.read(columns), self._base.read(columns), out=out)


def admit(
    rows: Sequence[m.AggregateRow], codec: Codec, layout: Layout, base: MappedModel, *, as_parameters: bool
) -> tuple[list[Admitted], dict[str, m.RowVerdict]]:
    """Open the updates' files.

    Args:
        rows: In roster order.
        codec: The run's.
        layout: The model's.
        base: The round's base version.
        as_parameters: Whether nodes send parameters rather than differences.

    Returns:
        The usable ones in the same order, and the verdicts on the others by node.
    """
    admitted, verdicts = [], {}
    for row in rows:
        try:
            admitted.append(_opened(row, codec, layout, base, as_parameters))
        except (LayoutError, LimitExceeded) as error:
            verdicts[row.node] = m.RowVerdict(row.node, False, str(error), 0.0, {})
    return admitted, verdicts


def _opened(row: m.AggregateRow, codec: Codec, layout: Layout, base: MappedModel, as_parameters: bool) -> Admitted:
    buffers = layout.part("buffers")
    expected = {"model", "buffers"} if buffers.tensors else {"model"}
    if set(row.parts) != expected:
        raise LayoutError(f"parts {sorted(row.parts)} instead of {sorted(expected)}")
    effective_shares([row.weight])  # refuses a weight that is not a weight
    reader = codec.reader(map_bytes(row.parts["model"]), base.d, layout.part("model"))
    if as_parameters:
        reader = Difference(reader, base)
    raw = _raw(row, buffers)
    if not finite(Row(row.node, row.weight, reader)) or not finite_buffers(buffers, raw):
        raise LayoutError(NON_FINITE)
    return Admitted(row.node, row.weight, reader, raw)


def _raw(row: m.AggregateRow, buffers: Layout) -> Tensor:
    if not buffers.nbytes:
        return torch.empty(0, dtype=torch.uint8)
    path = row.parts["buffers"]
    size = path.stat().st_size
    if size != buffers.nbytes:
        raise LayoutError(f"{size} bytes of buffers instead of {buffers.nbytes}")
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
