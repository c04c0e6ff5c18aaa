"""What a gossip node asks of its worker between trainings: what its run's protocol makes of its model."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from covey.artifact import Artifact
from covey.errors import LayoutError, SpecError, TaskError
from covey.gossip.protocols.contract import Context, Received, State, Update, weighted_mean
from covey.gossip.protocols.dynamics import Dynamics
from covey.gossip.push_sum.weighing import Weighs
from covey.layout import Layout
from covey.learning.schedules import factor
from covey.methods.contract import RunForm, parts_of
from covey.spec import GossipSpec, parse_json
from covey.vectors import LinearCombination, TensorVector, Vector, all_finite
from covey.vectors import is_finite as is_finite_block
from covey.worker.execute.algebra import BlockAlgebra
from covey.worker.execute.coded_bodies import codec_of, context_of, with_rest, write_body
from covey.worker.execute.forged_body import forged
from covey.worker.execute.next_version import write_model
from covey.worker.execute.node_vectors import NodeVectors, are_finite, is_finite
from covey.worker.execute.updates.from_peers import FromPeers
from covey.worker.files.estimates import OWN, STAMP_BYTES, Estimate, Estimates
from covey.worker.files.mapped import MappedModel, map_bytes, map_float32
from covey.worker.jobs.mixtures import MixJob, MixResult, Portion
from covey.worker.program.context import method_among_peers
from covey.worker.program.host import Host

Usable = Mapping[int, Received[Vector]]
"""What came and can be used, by position in the job."""


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
    if job.forgery is not None:
        return forged(job, job.forgery)
    rule = _rule(job)
    came: Usable
    came, estimates = _opened(job.portions, rule.files, rule.estimates) if rule.from_peers is None else ({}, None)
    if rule.weighs == "receiver":  # it goes by distances and ranks, in which a model that is not finite may not show
        came = _finite(came)
    try:
        return _made(job, rule, came, estimates)
    except _NotFinite:
        came = _finite(came)
    try:
        return _made(job, rule, came, estimates)
    except _NotFinite:
        raise TaskError("the mixture of models is not finite: training diverged") from None


class _NotFinite(Exception):
    """What was to be made has a value that is no number."""


def _finite(came: Usable) -> Usable:
    return {position: received for position, received in came.items() if is_finite(received)}


class _Seen:
    """What the pass that writes a model sees of the change: that it is finite, and how long it is if it is measured."""

    def __init__(self, *, measured: bool) -> None:
        self._measured = measured
        self._squares: list[float] = []

    def __call__(self, block: Tensor) -> None:
        """A block of it. Raises _NotFinite."""
        if not is_finite_block(block):
            raise _NotFinite
        if self._measured:
            self._squares.append(float(block.double().square().sum()))

    @property
    def length(self) -> float:
        """Its Euclidean norm; 0: it was not measured."""
        return math.sqrt(math.fsum(self._squares))


def _made(job: MixJob, rule: _Rule, came: Usable, estimates: Estimates | None) -> MixResult:
    """Make it with what can be used of what came. Raises _NotFinite."""
    files, state, update = rule.files, rule.state, rule.update(came)
    if not are_finite(update.vectors):
        raise _NotFinite
    # Where more is written than the model, all of it is looked at before.
    if (files.codec is not None or rule.from_peers is not None) and not all_finite(update.change):
        raise _NotFinite
    refused = tuple(position for position in range(len(job.portions)) if position not in came)
    body = kept = None
    if rule.from_peers is not None:
        body, (kept, refused) = rule.from_peers.write_body(job), rule.from_peers.gather(job)
    if job.may_stay and _changes_nothing(job, rule, update):
        return MixResult(None, "", 0.0, refused, kept=kept)
    base, change = rule.base, update.change
    if job.body is not None and files.codec is not None and rule.spec is not None:
        model = LinearCombination([(base, 1.0), (change, 1.0)], base.d)
        if estimates is None:
            body, sent = write_body(job.body, job, rule.spec, files.codec, files.layout, model)
            change = with_rest(base, change, sent, job.given)
        elif estimates.own is not None and not job.is_whole:
            context = context_of(job, rule.spec, files.layout)
            body = estimates.own.write_body(job.body, files.codec, model, context, synced=job.synced)
            estimates = estimates.having(OWN, estimates.own.moved(job.body, files.codec, files.layout))
    seen = _Seen(measured=job.described)
    written = write_model(
        job.out,
        files.layout,
        base,
        change,
        _buffers(job, files.layout, base),
        synced=job.synced,
        behind=files.behind(state, update, base.d),
        stamp=update.stamp,
        named=job.described,
        each=seen,
    )
    if estimates is not None and job.body is not None and body is None:  # the model itself is sent
        estimates = estimates.having(OWN, Estimate.whole(job.out, files.layout))
    if rule.from_peers is None:
        kept = _write_kept(job, rule, update, estimates)
    return MixResult(written.artifact, written.model_sha256, seen.length, refused, body, kept)


def _changes_nothing(job: MixJob, rule: _Rule, update: Update[Vector]) -> bool:
    """Whether a node that does not train, or to which nothing came, has what it had. Then its file stays."""
    files, change = rule.files, update.change
    is_zero = isinstance(change, LinearCombination) and change.is_zero and not update.vectors
    return is_zero and job.buffers is None and files.codec is None and not files.travels


def _opened(
    portions: Sequence[Portion], files: NodeVectors, estimates: Estimates | None
) -> tuple[dict[int, Received[Vector]], Estimates | None]:
    """What can be used of what came, by position; and what is known after it, where bodies are differences."""
    came: dict[int, Received[Vector]] = {}
    for position, portion in enumerate(portions):
        with contextlib.suppress(LayoutError):
            if estimates is None:
                came[position] = files.received(portion)
            else:
                estimates = estimates.heard(portion.source, portion.model)
                came[position] = Received(portion.share, estimates.known[portion.source].model)
    return came, estimates


def _write_kept(job: MixJob, rule: _Rule, update: Update[Vector], estimates: Estimates | None) -> Artifact | None:
    """The vectors that stay, and the estimates of those who still take part."""
    now = estimates.among(job.peers) if estimates is not None else None
    is_moved = now is not None and rule.estimates is not None and now.stamps != rule.estimates.stamps
    return rule.files.write_kept(
        job.out_kept, rule.state, update, rule.base.d, synced=job.synced, estimates=now, is_moved=is_moved
    )


@dataclass(frozen=True)
class _Rule:
    """What a job makes of what came.

    Attributes:
        files: Which vectors the run has.
        base: The node's model.
        state: What the node has.
        update: What becomes of it with what can be used of what came.
        weighs: Who says what a model counts for.
        spec: The run; None: a mean of models.
        estimates: What is known of peers, where bodies are differences.
        from_peers: What bodies are that are kept for local training; None: models are mixed.
    """

    files: NodeVectors
    base: MappedModel
    state: State[Vector]
    update: Callable[[Usable], Update[Vector]]
    weighs: Weighs = "mass"
    spec: GossipSpec | None = None
    estimates: Estimates | None = None
    from_peers: FromPeers | None = None


def _rule(job: MixJob) -> _Rule:
    layout = Layout.from_json(job.layout)
    base = MappedModel(job.base, layout)
    algebra = BlockAlgebra(base.d)
    if not job.spec_json:  # a mean of models, whatever is behind them
        state = State[Vector](base)
        plain = NodeVectors(layout)
        return _Rule(plain, base, state, lambda came: weighted_mean(state, list(came.values()), algebra))
    spec = _read(job.spec_json)
    dynamics = Dynamics.of(spec.gossip, allow_path=job.allow_path)
    from_peers = _from_peers(job.spec_json, job.layout, job.allow_path) if dynamics.own_models else None
    codec = codec_of(spec, layout, STAMP_BYTES if dynamics.differences else 0)
    files = NodeVectors(layout, dynamics.travels, dynamics.keeps, codec, dynamics.differences)
    kept = job.kept if from_peers is None else None
    state, estimates = files.state(job.base, kept), files.estimates(kept)
    context = Context(
        algebra,
        spec,
        job.step,
        learning_rate_at(spec, job.step),
        job.weight,
        job.change is not None,
        job.leaves,
        job.evictions,
    )
    if not job.applies:
        mixed = lambda came: dynamics.mix(state, list(came.values()), context)  # noqa: E731
        return _Rule(files, base, state, mixed, dynamics.weighs, spec, estimates, from_peers)
    change = TensorVector(map_float32(job.change, base.d)) if job.change is not None else algebra.combination([])
    return _Rule(
        files,
        base,
        state,
        lambda came: dynamics.train(state, change, job.scale, context),
        spec=spec,
        estimates=estimates,
        from_peers=from_peers,
    )


@lru_cache(maxsize=4)  # with small models, reading a specification takes longer than mixing
def _read(spec_json: str) -> GossipSpec:
    spec = parse_json(spec_json)
    if not isinstance(spec, GossipSpec):
        raise SpecError(f'mode: a run of mode "{spec.mode}" mixes no models')
    return spec


@lru_cache(maxsize=4)
def _from_peers(spec_json: str, layout: str, allow_path: bool) -> FromPeers | None:
    spec, own = _read(spec_json), Layout.from_json(layout)
    method = method_among_peers(spec, allow_path=allow_path)
    return FromPeers.of(own, parts_of(method, RunForm(spec, own)), spec.gossip.overlap)


def learning_rate_at(spec: GossipSpec, step: int) -> float:
    """The learning rate of a step's training, with its schedule. Raises as `covey.learning.schedules.factor`."""
    training = spec.training
    return training.learning_rate * factor(training.schedule.get("learning_rate"), step + 1, spec.rounds_in_all)


def _buffers(job: MixJob, layout: Layout, base: MappedModel) -> Tensor:
    if job.buffers is None:
        return base.raw_buffers
    data, size = map_bytes(job.buffers), layout.part("buffers").nbytes
    if len(data) != size:
        raise LayoutError(f"{job.buffers.name} has {len(data)} bytes, the buffers of the layout have {size}")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if size else base.raw_buffers
