"""What a gossip node asks of its worker between trainings: what its run's protocol makes of its model."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from typing_extensions import override

from covey.codecs.contract import Codec
from covey.errors import LayoutError, SpecError, TaskError
from covey.gossip.protocols.contract import Algebra, Context, Received, State, Update, weighted_mean
from covey.gossip.protocols.runs import protocol_of
from covey.layout import Layout
from covey.spec import GossipSpec, parse_json
from covey.vectors import BLOCK_ELEMENTS, LinearCombination, TensorVector, Vector, all_finite, spans
from covey.worker.execute.coded_bodies import codec_of, open_body, with_rest, write_body
from covey.worker.execute.next_version import write_model
from covey.worker.files.mapped import MappedModel, map_bytes, map_float32
from covey.worker.jobs.mixtures import MixJob, MixResult, Portion
from covey.worker.program.host import Host

Models = Mapping[int, Vector]
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
    base, spec = MappedModel(job.base, layout), _spec(job)
    codec = codec_of(spec, layout) if spec is not None else None
    models = dict(_opened(job.portions, layout, codec))
    rule, body = _rule(job, spec, base), None
    change = rule(models).change
    if not all_finite(change):
        models = {position: model for position, model in models.items() if all_finite(model)}
        change = rule(models).change
        if not all_finite(change):
            raise TaskError("the mixture of models is not finite: training diverged")
    if job.body is not None and spec is not None and codec is not None:
        model = LinearCombination([(base, 1.0), (change, 1.0)], base.d)
        body, sent = write_body(job.body, job, spec, codec, layout, model)
        change = with_rest(base, change, sent, job.given)
    written = write_model(job.out, layout, base, change, _buffers(job, layout, base), synced=job.synced)
    squares = math.fsum(
        float(change.read(columns).double().square().sum()) for columns in spans(base.d, BLOCK_ELEMENTS)
    )
    refused = tuple(position for position in range(len(job.portions)) if position not in models)
    return MixResult(written.artifact, written.model_sha256, math.sqrt(squares), refused, body)


def _opened(portions: Sequence[Portion], layout: Layout, codec: Codec | None) -> Iterator[tuple[int, Vector]]:
    for position, portion in enumerate(portions):
        with contextlib.suppress(LayoutError):
            yield position, open_body(portion.model, layout, codec)


def _spec(job: MixJob) -> GossipSpec | None:
    spec = parse_json(job.spec_json) if job.spec_json else None
    if spec is not None and not isinstance(spec, GossipSpec):
        raise SpecError(f'mode: a run of mode "{spec.mode}" mixes no models')
    return spec


def _rule(job: MixJob, spec: GossipSpec | None, base: MappedModel) -> Callable[[Models], Update[Vector]]:
    """What makes of the models that can be used what is added to the base."""
    algebra, state = BlockAlgebra(base.d), State[Vector](base)

    def received(models: Models) -> list[Received[Vector]]:
        return [Received(job.portions[position].share, model) for position, model in models.items()]

    def stays(models: Models) -> Update[Vector]:
        return Update(algebra.combination([]))

    if spec is None:
        return lambda models: weighted_mean(state, received(models), algebra) if models else stays(models)
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
