"""What a gossip node asks of its worker between trainings: the weighted mean of its model and those of peers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from covey.errors import LayoutError, TaskError
from covey.layout import Layout
from covey.vectors import BLOCK_ELEMENTS, LinearCombination, TensorVector, Vector, all_finite, spans
from covey.worker.execute.next_version import write_model
from covey.worker.files.mapped import MappedModel, map_bytes, map_float32
from covey.worker.jobs.mixtures import MixJob, MixResult
from covey.worker.program.host import Host


def mix(job: MixJob, host: Host) -> MixResult:
    """Make a mixture of models, and of what local training did.

    Raises:
        LayoutError: A file is not of the run's layout.
        TaskError: The mixture is not finite.
    """
    layout = Layout.from_json(job.layout)
    base = MappedModel(job.base, layout)
    change = LinearCombination([*_terms(job, layout, base)], base.d)
    if not all_finite(change):
        raise TaskError("the mixture of models is not finite: training diverged, or a peer sent what is not a model")
    written = write_model(job.out, layout, base, change, _buffers(job, layout, base))
    squares = math.fsum(
        float(change.read(columns).double().square().sum()) for columns in spans(base.d, BLOCK_ELEMENTS)
    )
    return MixResult(written.artifact, written.model_sha256, math.sqrt(squares))


def _terms(job: MixJob, layout: Layout, base: MappedModel) -> Iterator[tuple[Vector, float]]:
    for portion in job.portions:
        yield MappedModel(portion.model, layout), portion.share
    if job.portions:
        yield base, -math.fsum(portion.share for portion in job.portions)
    if job.change is not None:
        yield TensorVector(map_float32(job.change, base.d)), job.scale


def _buffers(job: MixJob, layout: Layout, base: MappedModel) -> Tensor:
    if job.buffers is None:
        return base.raw_buffers
    data, size = map_bytes(job.buffers), layout.part("buffers").nbytes
    if len(data) != size:
        raise LayoutError(f"{job.buffers.name} has {len(data)} bytes, the buffers of the layout have {size}")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if size else base.raw_buffers
