"""The part `buffers` (BatchNorm statistics, counters): combined by itself, never by a rule for directions.

Buffers are absolute values, and some are only valid in a range (a running variance is not negative), so
signs, momentum and noise are wrong for them. Here every result lies between the smallest and the largest
value that a node sent, in the buffer's own dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from covey.errors import LayoutError
from covey.layout import Layout
from covey.vectors import BLOCK_ELEMENTS, spans

_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}


def combine_buffers(
    layout: Layout, rows: Sequence[Tensor], shares: Tensor, rule: Literal["mean", "median"] = "mean"
) -> Tensor:
    """Combine the nodes' buffers.

    `mean`: floats by the weighted mean, accumulated in float64; integers by the rounded weighted mean (half
    to even); bool by the majority of shares, a tie being false. `median`: each element by the median over
    nodes, whatever their shares: of an even number of floats the mean of the middle two, of integers and bool
    the lower one.

    Args:
        layout: Of the part (`layout.part("buffers")`).
        rows: Each node's raw bytes in layout order, uint8 `[layout.nbytes]` (a tensor over the
            part's file, mapped); in node-id order, finite (`finite_buffers`).
        shares: float64 `[n]`, sum 1.
        rule: `mean` or `median`.

    Returns:
        Raw bytes in the same form, uint8 `[layout.nbytes]`.

    Raises:
        LayoutError: No rows, or a row of another size.
    """
    if not rows or shares.shape != (len(rows),):
        raise LayoutError(f"{len(rows)} rows of buffers and {tuple(shares.shape)} shares: give one share for each row")
    out = torch.empty(layout.nbytes, dtype=torch.uint8)
    for target, *values in zip(_tensors(layout, out), *(_tensors(layout, row) for row in rows), strict=True):
        for columns in spans(len(target), BLOCK_ELEMENTS):
            slab = torch.stack([value[columns] for value in values])
            target[columns] = _median(slab) if rule == "median" else _mean(slab, shares)
    return out


def finite_buffers(layout: Layout, row: Tensor) -> bool:
    """Whether all floats of one node's raw buffers, uint8 `[layout.nbytes]`, are finite: what a row must be.

    Raises:
        LayoutError: The row has another size.
    """
    return all(bool(torch.isfinite(t).all()) for t in _tensors(layout, row) if t.is_floating_point())


def _tensors(layout: Layout, raw: Tensor) -> Iterator[Tensor]:
    """The raw bytes as flat tensors of their dtypes (views)."""
    if raw.dtype != torch.uint8 or raw.shape != (layout.nbytes,):
        raise LayoutError(f"buffers are {layout.nbytes} raw bytes, not {raw.dtype} {tuple(raw.shape)}")
    start = 0
    for tensor in layout.tensors:
        yield raw[start : start + tensor.nbytes].view(_DTYPES[tensor.dtype])
        start += tensor.nbytes


def _mean(slab: Tensor, shares: Tensor) -> Tensor:
    """Weighted mean over rows, `[n, b]` to `[b]`, in the slab's dtype."""
    if slab.dtype == torch.bool:
        return shares @ slab.double() > shares @ (~slab).double()
    low, high = slab.amin(0), slab.amax(0)
    if slab.is_floating_point():
        return (shares @ slab.double()).to(slab.dtype).clamp(low, high)
    # From the lowest value up: equal large integers, which float64 cannot tell apart, stay what they are.
    rise = shares @ (slab.double() - low.double())
    return (low.long() + rise.round().long()).clamp(low.long(), high.long()).to(slab.dtype)


def _median(slab: Tensor) -> Tensor:
    """Median over rows, `[n, b]` to `[b]`, in the slab's dtype."""
    n = len(slab)
    if slab.is_floating_point():
        ordered = slab.double().sort(0).values
        return (ordered[(n - 1) // 2] / 2 + ordered[n // 2] / 2).to(slab.dtype)
    as_number: Callable[[Tensor], Tensor] = Tensor.byte if slab.dtype == torch.bool else Tensor.clone
    return as_number(slab).sort(0).values[(n - 1) // 2].to(slab.dtype)
