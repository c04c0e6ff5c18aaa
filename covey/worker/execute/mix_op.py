"""What a gossip node asks of its worker between trainings: what its run's protocol makes of its model."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from typing_extensions import override

from covey.errors import LayoutError, SpecError, TaskError
from covey.gossip.protocols.contract import Algebra, Context, Received, State, Update, weighted_mean
from covey.gossip.protocols.runs import protocol_of
from covey.layout import Layout
from covey.spec import GossipSpec, parse_json
from covey.vectors import BLOCK_ELEMENTS, LinearCombination, TensorVector, Vector, all_finite, spans
from covey.worker.execute.next_version import write_model
from covey.worker.files.mapped import MappedModel, map_bytes, map_float32
from covey.worker.jobs.mixtures import MixJob, MixResult, Portion
from covey.worker.program.host import Host

Models = Mapping[int, MappedModel]
"""The models that came, by position in the job."""


class BlockAlgebra(Algebra[Vector]):
    """Over `covey.vectors`.

    Args:
        d: Number of elements of every vector.
    """

    def __init__(self, d: int) -> None:
        self._d = d

    @override
    def combination(self, terms: Sequence[tuple[Vector, float]]) -> Vector:
        return LinearCombination(terms, self._d)


def mix(job: MixJob, host: Host) -> MixResult:
    """Make a node's next model, of its own and of what local training did, or of models that came.

    A portion whose file is no model of this run, or is not finite, is passed over: its share stays with the base, as if
    its sender had sent the base itself. So a peer that sends what it should not costs nobody more than that.

    Raises:
        LayoutError: The base is not of the run's layout.
        SpecError: The run's specification is wrong.
        PluginError: Its protocol is not installed here.
        TaskError: What was made is not finite: training diverged.
    """
    layout = Layout.from_json(job.layout)
    base = MappedModel(job.base, layout)
    models = dict(_opened(job.portions, layout))
    rule = _rule(job, base)
    change = rule(models).change
    if not all_finite(change):
        models = {position: model for position, model in models.items() if all_finite(model)}
        change = rule(models).change
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


def _rule(job: MixJob, base: MappedModel) -> Callable[[Models], Update[Vector]]:
    """What makes of the models that can be used what is added to the base."""
    algebra, state = BlockAlgebra(base.d), State[Vector](base)

    def received(models: Models) -> list[Received[Vector]]:
        return [Received(job.portions[position].share, model) for position, model in models.items()]

    def stays(models: Models) -> Update[Vector]:
        return Update(algebra.combination([]))

    if not job.spec_json:
        return lambda models: weighted_mean(state, received(models), algebra) if models else stays(models)
    spec = parse_json(job.spec_json)
    if not isinstance(spec, GossipSpec):
        raise SpecError(f'mode: a run of mode "{spec.mode}" mixes no models')
    protocol = protocol_of(spec.gossip, allow_path=job.allow_path)
    context = Context(algebra, spec, job.step)
    if job.change is not None:
        change = TensorVector(map_float32(job.change, base.d))
        return lambda models: protocol.train(state, change, job.scale, context)
    return lambda models: protocol.mix(state, received(models), context) if models else stays(models)


def _buffers(job: MixJob, layout: Layout, base: MappedModel) -> Tensor:
    if job.buffers is None:
        return base.raw_buffers
    data, size = map_bytes(job.buffers), layout.part("buffers").nbytes
    if len(data) != size:
        raise LayoutError(f"{job.buffers.name} has {len(data)} bytes, the buffers of the layout have {size}")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if size else base.raw_buffers
