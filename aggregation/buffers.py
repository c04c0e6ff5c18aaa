"""The part `buffers` (BatchNorm statistics, counters): combined by itself, never by a rule for directions.

Buffers are absolute values, and some are only valid in a range (a running variance is not negative), so
signs, momentum and noise are wrong for them. Here every result lies between the smallest and the largest
value that a node sent, in the buffer's own dtype.

An element that is infinite or not a number in the base version (a causal mask, an observer that has seen nothing yet)
stays what it is, bit for bit. A node may send it as it was, or a number in its place; nothing else that is not finite
is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from covey.errors import LayoutError
from covey.layout import Layout
from covey.vectors import BLOCK_ELEMENTS, is_finite, spans

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
_BITS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}


def combine_buffers(
    layout: Layout,
    rows: Sequence[Tensor],
    shares: Tensor,
    rule: Literal["mean", "median"] = "mean",
    base: Tensor | None = None,
) -> Tensor:
    """Combine the nodes' buffers.

    `mean`: floats by the weighted mean, accumulated in float64; integers by the rounded weighted mean (half
    to even); bool by the majority of shares, a tie being false. `median`: each element by the median over
    nodes, whatever their shares: of an even number of floats the mean of the middle two, of integers and bool
    the lower one.

    Of an element that is not finite in some rows, the others count only, and only if they are more than half: by shares
    (`mean`), or by number (`median`). Else the base's value stays.

    Args:
        layout: Of the part (`layout.part("buffers")`).
        rows: Each node's raw bytes in layout order, uint8 `[layout.nbytes]` (a tensor over the
            part's file, mapped); in node-id order, acceptable by `finite_buffers`.
        shares: float64 `[n]`, sum 1.
        rule: `mean` or `median`.
        base: The version that the rows are to change, in the same form; needed where a row is not finite.

    Returns:
        Raw bytes in the same form, uint8 `[layout.nbytes]`.

    Raises:
        LayoutError: No rows, or a row of another size.
    """
    if not rows or shares.shape != (len(rows),):
        raise LayoutError(f"{len(rows)} rows of buffers and {tuple(shares.shape)} shares: give one share for each row")
    out = torch.empty(layout.nbytes, dtype=torch.uint8)
    before = out if base is None else base
    for target, old, *values in zip(*(_tensors(layout, row) for row in (out, before, *rows)), strict=True):
        for columns in spans(len(target), BLOCK_ELEMENTS):
            slab = torch.stack([value[columns] for value in values])
            if slab.is_floating_point() and not is_finite(slab):
                target[columns] = _of_known(slab, shares, rule, old[columns])
            else:
                target[columns] = _median(slab) if rule == "median" else _mean(slab, shares)
    return out


def finite_buffers(layout: Layout, row: Tensor, base: Tensor | None = None) -> bool:
    """Whether one node's raw buffers are acceptable: all floats finite, or just what they are in the base version.

    Args:
        layout: Of the part.
        row: uint8 `[layout.nbytes]`.
        base: The same of the base version; None: all must be finite.

    Raises:
        LayoutError: The row has another size.
    """
    before = _tensors(layout, row if base is None else base)
    return all(
        not_finite_at(new, None if base is None else old) is None
        for new, old in zip(_tensors(layout, row), before, strict=True)
    )


def not_finite_at(values: Tensor, base: Tensor | None) -> int | None:
    """The first element that is neither finite nor what it is in the base, bit for bit; None: there is none.

    Args:
        values: `[n]`, of any dtype.
        base: The same shape and dtype; None: all must be finite.
    """
    if not values.is_floating_point() or is_finite(values):
        return None
    wrong = ~torch.isfinite(values)
    if base is not None:
        wrong &= values.view(_BITS[values.dtype]) != base.view(_BITS[values.dtype])
    return int(wrong.nonzero()[0]) if wrong.any() else None


def _tensors(layout: Layout, raw: Tensor) -> Iterator[Tensor]:
    """The raw bytes as flat tensors of their dtypes: views, or copies where a model file does not align them."""
    if raw.dtype != torch.uint8 or raw.shape != (layout.nbytes,):
        raise LayoutError(f"buffers are {layout.nbytes} raw bytes, not {raw.dtype} {tuple(raw.shape)}")
    start = 0
    for tensor in layout.tensors:
        piece, dtype = raw[start : start + tensor.nbytes], _DTYPES[tensor.dtype]
        yield (piece.clone() if piece.storage_offset() % dtype.itemsize else piece).view(dtype)
        start += tensor.nbytes


def _of_known(slab: Tensor, shares: Tensor, rule: str, base: Tensor) -> Tensor:
    """The same over the finite rows of each element, `[n, b]` to `[b]`; the base where these are not most."""
    known = torch.isfinite(slab)
    values = slab.double().masked_fill(~known, 0)
    if rule == "median":
        most = known.sum(0) * 2 > len(slab)
        ordered, last = values.masked_fill(~known, torch.inf).sort(0).values, known.sum(0).clamp(min=1)
        combined = (ordered.gather(0, (last - 1)[None] // 2) / 2 + ordered.gather(0, last[None] // 2) / 2)[0]
    else:
        weight = shares @ known.double()
        most = weight * 2 > shares.sum()
        combined = (shares @ values) / weight
        low, high = values.masked_fill(~known, torch.inf).amin(0), values.masked_fill(~known, -torch.inf).amax(0)
        combined = combined.clamp(low, high)
    return torch.where(most, combined.to(slab.dtype), base)


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
