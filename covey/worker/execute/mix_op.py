"""What a gossip node asks of its worker between trainings: the weighted mean of its model and those of peers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from covey.errors import LayoutError, TaskError
from covey.layout import Layout
from covey.vectors import BLOCK_ELEMENTS, LinearCombination, TensorVector, Vector, all_finite, spans
from covey.worker.execute.next_version import write_model
from covey.worker.files.mapped import MappedModel, map_bytes, map_float32
from covey.worker.jobs.mixtures import MixJob, MixResult, Portion
from covey.worker.program.host import Host


def mix(job: MixJob, host: Host) -> MixResult:
    """Make a mixture of models, and of what local training did.

    A portion whose file is no model of this run, or is not finite, is passed over: its share stays with the base, as if
    its sender had sent the base itself. So a peer that sends what it should not costs nobody more than that.

    Raises:
        LayoutError: The base is not of the run's layout.
        TaskError: The mixture is not finite: training diverged.
    """
    layout = Layout.from_json(job.layout)
    base = MappedModel(job.base, layout)
    models = dict(_opened(job.portions, layout))
    change = _change(job, base, models)
    if not all_finite(change):
        models = {position: model for position, model in models.items() if all_finite(model)}
        change = _change(job, base, models)
        if not all_finite(change):
            raise TaskError("the mixture of models is not finite: training diverged")
    written = write_model(job.out, layout, base, change, _buffers(job, layout, base), synced=job.synced)
    squares = math.fsum(
        float(change.read(columns).double().square().sum()) for columns in spans(base.d, BLOCK_ELEMENTS)
    )
    refused = tuple(position for position in range(len(job.portions)) if position not in models)
    return MixResult(written.artifact, written.model_sha256, math.sqrt(squares), refused)


def _opened(portions: Sequence[Portion], layout: Layout) -> Iterator[tuple[int, MappedModel]]:
    for position, portion in enumerate(portions):
        with contextlib.suppress(LayoutError):
            yield position, MappedModel(portion.model, layout)


def _change(job: MixJob, base: MappedModel, models: Mapping[int, MappedModel]) -> LinearCombination:
    """What is added to the base."""
    shares = [job.portions[position].share for position in models]
    terms: list[tuple[Vector, float]] = list(zip(models.values(), shares, strict=True))
    if models:
        terms.append((base, -math.fsum(shares)))
    if job.change is not None:
        terms.append((TensorVector(map_float32(job.change, base.d)), job.scale))
    return LinearCombination(terms, base.d)


def _buffers(job: MixJob, layout: Layout, base: MappedModel) -> Tensor:
    if job.buffers is None:
        return base.raw_buffers
    data, size = map_bytes(job.buffers), layout.part("buffers").nbytes
    if len(data) != size:
        raise LayoutError(f"{job.buffers.name} has {len(data)} bytes, the buffers of the layout have {size}")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if size else base.raw_buffers
