"""What a coordinator asks of its worker before round 1: is the specification sound; the first model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from covey.errors import TaskError
from covey.gossip.protocols.runs import impossible_in, notes_of
from covey.layout import Layout
from covey.learning.data import size_of
from covey.learning.models import state
from covey.learning.models.given import given_model
from covey.learning.optimizers import local_optimizer
from covey.learning.partition import partition_in
from covey.methods.contract import Combination, Part, RunForm, parts_of
from covey.parts import COLLECT, FIRST, MEAN, DeclaredPart, slot
from covey.spec import GossipSpec, RunSpec
from covey.spec.unread import unread_by_mode
from covey.worker.execute import privacy_metrics as privacy
from covey.worker.execute.attempts import Attempts
from covey.worker.execute.compatibility import CHECKS, Check
from covey.worker.execute.forms import check_forms, in_words, nobody_evaluates
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
from covey.worker.execute.privacy_metrics import rounds_in_budget, spent_metrics
from covey.worker.execute.unread_keys import unread_keys
from covey.worker.execute.updates.encode_update import node_state
from covey.worker.files.mapped import FLOAT32_BYTES
from covey.worker.jobs.runs import DescribeJob, Description, InitialJob, InitialResult
from covey.worker.program.context import RunContext
from covey.worker.program.host import Host


def describe(job: DescribeJob, host: Host) -> Description:
    """Make everything that a specification names, and refuse what cannot work together: all of it in one message.

    Raises:
        PluginError: A name is not installed here.
        SpecError: An option is wrong, or a combination is impossible; the message names key and choices.
        TaskError: The task's code failed.
        LayoutError: The model cannot be exchanged, or nothing in it can be trained.
    """
    context = RunContext(
        job.spec_json, host.device, paths=job.data_paths, options={}, allow_path=job.allow_path, later=job.submitted
    )
    parts, declared = _checked(context, job)
    spec, codec, layout = parts.spec, parts.codec, parts.layout
    last, expected = rounds_in_budget(spec, codec), privacy.forecast(spec, codec)
    notes = notes_of(spec, allow_path=job.allow_path) if isinstance(spec, GossipSpec) else ()
    return Description(
        # What stays on the nodes cannot be evaluated here.
        central=parts.central > 0 and not parts.local and (context.method.global_model or spec.evaluation.only),
        aggregator_min=_needed(parts),
        slots=state_slots(parts, declared),
        parts=(*(part.declared(codec) for part in declared), *_first_beside(spec, layout)),
        phases=context.method.phases,
        global_model=context.method.global_model,
        model_bytes=layout.file_bytes,
        sharing=in_words(context.form()),
        notes=(
            *context.method.notes(parts),
            *notes,
            *filter(None, [privacy.in_words(expected, spec)]),
            *(f"{key}: {text}" for key, text in (_evaluation(context) if spec.evaluation.where == "both" else ())),
        ),
        node_state=(
            *node_state(spec, codec),
            *_kept_on_nodes(declared),
            *filter(None, [context.local_slot] if parts.local else []),
        ),
        last_round=last,
        why_last="" if last is None else f"one round more would spend more than [stop] epsilon = {spec.stop.epsilon:g}",
        privacy=expected,
    )


def _checked(context: RunContext, job: DescribeJob) -> tuple[Combination, tuple[Part, ...]]:
    """What the specification names, made, and the parts that the method declares. Raises as `describe`."""
    spec, tries, written = context.spec, Attempts(), frozenset(job.written)
    wrong = [(key, text) for key, text, _ in spec.impossible()]
    if job.submitted:
        tries.of(context.check_model)
        if spec.evaluation.only or spec.evaluation.where == "nodes":  # else the coordinator measures something
            wrong += tries.of(partial(_evaluation, context)) or []
    wrong += unread_by_mode(spec, job.written)
    if isinstance(spec, GossipSpec):
        least = spec.min_nodes if job.submitted else 0
        wrong += tries.of(partial(impossible_in, spec, begins_with=least, allow_path=job.allow_path)) or []
    parts, declared = _combination(context, job, tries), None
    if parts is not None:
        combination = parts
        for check in CHECKS:
            wrong += tries.of(partial(_listed, check, combination)) or []
        wrong += tries.of(lambda: list(unread_keys(combination, written))) or []
        form = RunForm(spec, combination.layout, lambda: combination.task)
        declared = tries.of(lambda: parts_of(context.method, form))
        wrong += tries.of(partial(_budget, combination)) or []
    tries.of(partial(_try_optimizers, spec))
    tries.of(lambda: partition_in(spec.data))
    tries.finish(wrong)
    if parts is None or declared is None:
        raise RuntimeError("a specification that could not be made was not refused")
    return parts, declared


def _budget(parts: Combination) -> list[tuple[str, str]]:
    """Refuses a budget that is less than one round, and privacy where the package for its account is missing."""
    spent = spent_metrics(parts.spec, parts.codec, 1)
    if rounds_in_budget(parts.spec, parts.codec) != 0:
        return []
    epsilon, _ = next(iter(spent.values()))
    return [("stop.epsilon", f"the first round alone would spend {epsilon:.3g}; choose more noise, or fewer steps")]


def _evaluation(context: RunContext) -> list[tuple[str, str]]:
    """That nodes are asked to evaluate, and none can. A run on record goes on all the same."""
    why = nobody_evaluates(context) if context.spec.facts.coordinated else ""
    return [("evaluation.only" if context.spec.evaluation.only else "evaluation.where", why)] if why else []


def _listed(check: Check, parts: Combination) -> list[tuple[str, str]]:
    return list(check(parts))


def _try_optimizers(spec: RunSpec) -> None:
    """Refuses an unknown optimizer or schedule, and a momentum of 1."""
    last = spec.rounds_in_all if "momentum" in spec.training.schedule else 1
    for number in range(1, last + 1):
        local_optimizer((), spec.training, number, spec.rounds_in_all)


def _combination(context: RunContext, job: DescribeJob, tries: Attempts) -> Combination | None:
    """All that is named; None where something could not be made, which `tries` has noted."""
    spec = context.spec
    task, method = tries.of(lambda: context.task), tries.of(lambda: context.method)
    rule = policy = None
    if by_policy(spec):
        policy = tries.of(partial(load_policy, spec))
    else:
        rule = tries.of(partial(load_aggregator, spec))
    fallback = tries.of(partial(load_fallback, spec))
    codec, optimizer = tries.of(partial(load_codec, spec.exchange)), tries.of(partial(load_server_optimizer, spec))
    if task is None or method is None or codec is None or optimizer is None or (rule is None and policy is None):
        return None
    if spec.aggregation.fallback and fallback is None:
        return None
    central, form = tries.of(partial(_central, context, job)), tries.of(context.form)
    if form is not None:
        tries.of(partial(check_forms, context, form))
    if central is None or form is None:
        return None
    return Combination(
        spec=spec,
        task=task,
        layout=form.layout,
        rule=rule,
        policy=policy,
        fallback=fallback,
        codec=codec,
        optimizer=optimizer,
        central=central,
        method=method,
        local=form.sharing.local,
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


def _first_beside(spec: RunSpec, layout: Layout) -> tuple[DeclaredPart, ...]:
    """The model with which the local-only baseline begins, where it comes beside the one that is evaluated."""
    if not spec.evaluation.local_initial:
        return ()
    size = layout.file_bytes
    return (DeclaredPart(FIRST, "none", "", size, exact=True, up=None, down=1, audience="all", combine=MEAN),)


def _needed(parts: Combination) -> int:
    needed = [rule.min_updates() for rule in (parts.rule, parts.fallback) if rule is not None]
    return parts.policy.min_nodes() if parts.policy is not None else min(needed)


def initial(job: InitialJob, host: Host) -> InitialResult:
    """Make a run's first model from its seed, or from a file, as a synced file.

    Raises:
        LayoutError: The model has tensors that cannot be exchanged, or the file is not one of this model.
        TaskError: The task's code failed.
    """
    # Always a new model: one that is held warm may have been loaded with a later version.
    own = job.task_options
    context = RunContext(job.spec_json, host.device, paths={}, options={}, allow_path=job.allow_path, task_options=own)
    context.check_model()
    if job.source is None:
        written = state.write_model(job.out, context.layout, context.model)
    else:
        local = dict.fromkeys(context.local.names, "stays on each node, and begins with the seed's values")
        tensors, frozen = state.tensors_of(context.model), context.frozen.names
        with given_model(job.source, context.layout, tensors, local, frozen) as given:
            written = state.write_model(job.out, context.layout, given)
    stays = len(context.local.names)
    return InitialResult(context.layout.to_json(), written.artifact, written.model_sha256, stays)
