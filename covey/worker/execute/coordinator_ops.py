"""What a coordinator asks of its worker before round 1: is the specification sound; the first model."""

from __future__ import annotations

from collections.abc import Sequence

from covey.errors import TaskError
from covey.learning.data import size_of
from covey.learning.models import state
from covey.learning.optimizers import local_optimizer
from covey.learning.partition import partition_in
from covey.methods.contract import Combination, Part, RunForm, parts_of
from covey.parts import COLLECT, slot
from covey.worker.execute.compatibility import refuse_impossible
from covey.worker.execute.from_spec import (
    by_policy,
    change_codec,
    load_aggregator,
    load_codec,
    load_fallback,
    load_policy,
    load_server_optimizer,
    uses_root,
)
from covey.worker.execute.next_version import AGGREGATOR, BROADCAST, CHANGE, OPTIMIZER, RESIDUAL
from covey.worker.execute.privacy_metrics import spent_metrics
from covey.worker.execute.unread_keys import unread_keys
from covey.worker.execute.updates.encode_update import node_state
from covey.worker.files.mapped import FLOAT32_BYTES
from covey.worker.jobs.runs import DescribeJob, Description, InitialJob, InitialResult
from covey.worker.program.context import RunContext
from covey.worker.program.host import Host
from covey.worker.program.local_tensors import LOCAL


def describe(job: DescribeJob, host: Host) -> Description:
    """Make everything that a specification names, and refuse what cannot work together.

    Raises:
        PluginError: A name is not installed here.
        SpecError: An option is wrong, or a combination is impossible; the message names key and choices.
        TaskError: The task's code failed.
        LayoutError: The model cannot be exchanged, or nothing in it can be trained.
    """
    context = RunContext(job.spec_json, host.device, paths=job.data_paths, options={}, allow_path=job.allow_path)
    if job.submitted:
        context.check_model()
    spec, codec, optimizer = context.spec, load_codec(context.spec.exchange), load_server_optimizer(context.spec)
    rule, policy = (None, load_policy(spec)) if by_policy(spec) else (load_aggregator(spec), None)
    central, (layout, local) = _central(context, job), context.form()
    parts = Combination(
        spec=spec,
        task=context.task,
        layout=layout,
        rule=rule,
        policy=policy,
        fallback=load_fallback(spec),
        codec=codec,
        optimizer=optimizer,
        central=central,
        method=context.method,
        local=local,
    )
    refuse_impossible(parts, unread_keys(parts, frozenset(job.written)))
    declared = parts_of(context.method, RunForm(spec, layout))
    spent_metrics(codec, 1)  # refuses where the package for it is missing
    last = spec.rounds_in_all if "momentum" in spec.training.schedule else 1
    for number in range(1, last + 1):  # refuses an unknown optimizer or schedule, and a momentum of 1
        local_optimizer((), spec.training, number, spec.rounds_in_all)
    partition_in(spec.data)
    return Description(
        # What stays on the nodes cannot be evaluated here.
        central=central > 0 and not local and context.method.global_model,
        aggregator_min=_needed(parts),
        slots=state_slots(parts, declared),
        parts=tuple(part.declared(codec) for part in declared),
        phases=context.method.phases,
        global_model=context.method.global_model,
        model_bytes=layout.file_bytes,
        node_state=(*node_state(spec, codec), *_kept_on_nodes(declared), *([slot(LOCAL)] if local else [])),
    )


def _central(context: RunContext, job: DescribeJob) -> int:
    """How many central examples there are. Of a run that was accepted, data that are gone cost its evaluation only."""
    try:
        data = context.central_data
    except TaskError:
        if job.submitted or uses_root(context.spec):
            raise
        return 1
    return 0 if data is None else max(1, size_of(data))


def state_slots(run: Combination, declared: Sequence[Part]) -> dict[str, int]:
    """The files that a version has beside the model, and about how large they are (see `Description.slots`)."""
    whole, codec = FLOAT32_BYTES * run.layout.part("model").numel, run.codec
    slots = {OPTIMIZER + name: whole for name in run.optimizer.slots}
    if run.rule is not None:
        slots |= {AGGREGATOR + name: whole for name in run.rule.state_names}
        down = change_codec(run.spec, codec, run.rule, run.optimizer)
        if down is not None:
            slots[CHANGE] = codec.encoded_bytes(run.layout.part("model").numel, run.layout.part("model"))
            slots |= {} if down.signs else {RESIDUAL: whole}
    if codec.summarises:
        slots[BROADCAST] = 0
    kept = [part for part in declared if "version" in part.keep and not part.in_model and part.combine != COLLECT]
    return slots | {slot(part.name): part.layout.nbytes if part.layout else part.max_bytes for part in kept}


def _kept_on_nodes(declared: Sequence[Part]) -> list[str]:
    return [slot(part.name) for part in declared if part.keep & {"node-accepted", "node-always"}]


def _needed(parts: Combination) -> int:
    needed = [rule.min_updates() for rule in (parts.rule, parts.fallback) if rule is not None]
    return parts.policy.min_nodes() if parts.policy is not None else min(needed)


def initial(job: InitialJob, host: Host) -> InitialResult:
    """Make a run's first model from its seed, as a synced file.

    Raises:
        LayoutError: The model has tensors that cannot be exchanged.
        TaskError: The task's code failed.
    """
    # Always a new model: one that is held warm may have been loaded with a later version.
    context = RunContext(job.spec_json, host.device, paths={}, options={}, allow_path=job.allow_path)
    context.check_model()
    written = state.write_model(job.out, context.layout, context.model)
    return InitialResult(context.layout.to_json(), written.artifact, written.model_sha256)
