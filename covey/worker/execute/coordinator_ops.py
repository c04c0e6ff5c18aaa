"""What a coordinator asks of its worker before round 1: is the specification sound; the first model."""

from __future__ import annotations

from covey.aggregation.asynchronous.contract import ASYNC_POLICIES
from covey.learning import state
from covey.learning.data import size_of
from covey.learning.optimizers import local_optimizer
from covey.learning.partition import partition_in
from covey.worker.execute.compatibility import Parts, refuse_impossible
from covey.worker.execute.decision_op import load_policy
from covey.worker.execute.encode_update import node_state
from covey.worker.execute.from_spec import (
    change_codec,
    load_aggregator,
    load_codec,
    load_fallback,
    load_server_optimizer,
)
from covey.worker.execute.next_version import AGGREGATOR, BROADCAST, CHANGE, OPTIMIZER, RESIDUAL
from covey.worker.execute.privacy_metrics import spent_metrics
from covey.worker.jobs.runs import DescribeJob, Description, InitialJob, InitialResult
from covey.worker.program.context import RunContext
from covey.worker.program.host import Host


def describe(job: DescribeJob, host: Host) -> Description:
    """Make everything that a specification names, and refuse what cannot work together.

    Raises:
        PluginError: A name is not installed here.
        SpecError: An option is wrong, or a combination is impossible; the message names key and choices.
        TaskError: The task's code failed.
    """
    context = RunContext(job.spec_json, host.device, paths={}, options={}, allow_path=job.allow_path)
    spec, codec, optimizer = context.spec, load_codec(context.spec.exchange), load_server_optimizer(context.spec)
    by_policy = spec.facts.rule_kind == ASYNC_POLICIES.name
    rule, policy = (None, load_policy(spec)) if by_policy else (load_aggregator(spec), None)
    fallback, central = load_fallback(spec), context.central_data
    layout = context.form()
    parts = Parts(
        spec, context.task, layout, rule, policy, fallback, codec, optimizer, 0 if central is None else size_of(central)
    )
    refuse_impossible(parts)
    spent_metrics(codec, 1)  # refuses where the package for it is missing
    last = spec.rounds_in_all if "momentum" in spec.training.schedule else 1
    for number in range(1, last + 1):  # refuses an unknown optimizer or schedule, and a momentum of 1
        local_optimizer((), spec.training, number, spec.rounds_in_all)
    partition_in(spec.data)
    return Description(
        central=central is not None,
        aggregator_min=_needed(parts),
        slots=state_slots(parts),
        part_bytes=codec.encoded_bytes(layout.part("model").numel, layout.part("model")),
        part_exact=codec.fixed_size,
        node_state=node_state(spec, codec),
    )


def state_slots(parts: Parts) -> tuple[str, ...]:
    """Names of the files that a version has beside the model (see `messages.Description`)."""
    slots = [OPTIMIZER + slot for slot in parts.optimizer.slots]
    if parts.rule is not None:
        slots += [AGGREGATOR + name for name in parts.rule.state_names]
        down = change_codec(parts.spec, parts.codec, parts.rule, parts.optimizer)
        if down is not None:
            slots += [CHANGE] if down.signs else [CHANGE, RESIDUAL]
    if parts.codec.summarises:
        slots.append(BROADCAST)
    return tuple(slots)


def _needed(parts: Parts) -> int:
    needed = [one.min_updates() for one in (parts.rule, parts.fallback) if one is not None]
    return parts.policy.min_nodes() if parts.policy is not None else min(needed)


def initial(job: InitialJob, host: Host) -> InitialResult:
    """Make a run's first model from its seed, as a synced file.

    Raises:
        LayoutError: The model has tensors that cannot be exchanged.
        TaskError: The task's code failed.
    """
    # Always a new model: one that is held warm may have been loaded with a later version.
    context = RunContext(job.spec_json, host.device, paths={}, options={}, allow_path=job.allow_path)
    made = state.write_model(job.out, context.layout, context.model)
    return InitialResult(context.layout.canonical_bytes().decode("ascii"), made.artifact, made.model_sha256)
