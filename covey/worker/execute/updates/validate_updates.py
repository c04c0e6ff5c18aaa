"""Which updates of a round the rule gets to see: those whose files hold what they must, all of it finite."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from covey.aggregation.buffers import finite_buffers
from covey.aggregation.matrix import Row, finite
from covey.aggregation.verdicts import Verdict
from covey.aggregation.weights import effective_shares
from covey.errors import LayoutError, LimitExceeded
from covey.methods.contract import Part
from covey.parts import COLLECT, RULE
from covey.vectors import TensorVector, Vector
from covey.worker.execute.updates.update_form import UpdateForm, layout_of
from covey.worker.files.mapped import MappedModel, dtype_of
from covey.worker.jobs.steps import StepAnswer

NON_FINITE = "non-finite"


@dataclass(frozen=True)
class Admitted:
    """An update with nothing against it so far.

    Attributes:
        node: The node's id.
        weight: As declared.
        reader: Its vector, as something to be added to the base.
        tensors: The raw values of its other parts, uint8, by part.
        files: Of all its parts.
    """

    node: str
    weight: float
    reader: Vector
    tensors: Mapping[str, Tensor]
    files: Mapping[str, Path]


def admit(rows: Sequence[StepAnswer], form: UpdateForm, base: MappedModel) -> tuple[list[Admitted], dict[str, Verdict]]:
    """Open the updates' files.

    Args:
        rows: With the parts of all phases, in roster order.
        form: Of the run's updates.
        base: The round's base version.

    Returns:
        The usable ones in the same order, and the verdicts on the others by node.
    """
    admitted, verdicts = [], {}
    for row in rows:
        try:
            admitted.append(_opened(row, form, base))
        except (LayoutError, LimitExceeded) as error:
            verdicts[row.node] = Verdict(row.node, "rejected", str(error))
    return admitted, verdicts


def open_parts(
    node: str, files: Mapping[str, Path], form: UpdateForm, base: MappedModel, phases: Collection[int]
) -> dict[str, Vector | Tensor | bytes]:
    """The parts that a node sent in some phases, as `covey.methods.planning.Answer` has them.

    Raises:
        LayoutError, LimitExceeded: A file does not hold what it must, or a value that is not finite.
    """
    expected = [part for part in form.sent if part.up in phases]
    if set(files) != {part.name for part in expected}:
        raise LayoutError(f"parts {sorted(files)} instead of {sorted(part.name for part in expected)}")
    return {part.name: open_part(node, part, files, form, base) for part in expected}


def open_part(
    node: str, part: Part, files: Mapping[str, Path], form: UpdateForm, base: MappedModel
) -> Vector | Tensor | bytes:
    """One part of an update; as `open_parts`."""
    if part.combine == RULE:
        vector = form.vector(files, base)
        if not finite(Row(node, 1.0, vector)):
            raise LayoutError(NON_FINITE)
        return vector
    if part.layout is None:
        if files[part.name].stat().st_size > part.max_bytes:
            raise LayoutError(f"more than {part.max_bytes} bytes of {part.name}")
        return files[part.name].read_bytes()
    raw = form.raw(part, files)
    if not _acceptable(part, raw, base):
        raise LayoutError(NON_FINITE)
    return raw if part.in_model else raw.view(dtype_of(part.layout))


def _opened(row: StepAnswer, form: UpdateForm, base: MappedModel) -> Admitted:
    expected = {part.name for part in form.sent}
    if set(row.parts) != expected:
        raise LayoutError(f"parts {sorted(row.parts)} instead of {sorted(expected)}")
    effective_shares([row.weight])  # refuses a weight that is not a weight
    reader = form.vector(row.parts, base) if form.has_rule else TensorVector(torch.empty(0))
    for part in form.sent:
        if part.combine == COLLECT:
            open_part(row.node, part, row.parts, form, base)
    tensors = {part.name: form.raw(part, row.parts) for part in form.tensors}
    if not finite(Row(row.node, row.weight, reader)) or not all(
        _acceptable(part, tensors[part.name], base) for part in form.tensors
    ):
        raise LayoutError(NON_FINITE)
    _ask_method(row, form, base)
    return Admitted(row.node, row.weight, reader, tensors, row.parts)


def _ask_method(row: StepAnswer, form: UpdateForm, base: MappedModel) -> None:
    own = [part for part in form.sent if part.combine != RULE and not part.in_model]
    reason = form.method.objection({p.name: open_part(row.node, p, row.parts, form, base) for p in own}, form.run)
    if reason:
        raise LayoutError(reason)


def _acceptable(part: Part, raw: Tensor, base: MappedModel) -> bool:
    """Whether a part's values are finite; those of the model's own buffers may also be what they are in the base."""
    before = base.raw_buffers if part.in_model and len(base.raw_buffers) == len(raw) else None
    return finite_buffers(layout_of(part), raw, before)
