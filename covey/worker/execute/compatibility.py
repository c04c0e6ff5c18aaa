"""What a specification may not combine, refused at submission with the reason and a way out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from covey.aggregation.contract import Aggregator
from covey.learning.models.sharing import KEYS
from covey.learning.partition import PARTITIONS
from covey.methods.contract import Combination as Parts
from covey.methods.contract import RunForm, parts_of
from covey.parts import RULE
from covey.spec import RunSpec
from covey.worker.execute.from_spec import by_policy, uses_feedback
from covey.worker.program.evaluation_only import EvaluationOnly

Complaints = Iterator[tuple[str, str]]


def _task(parts: Parts) -> Complaints:
    spec, task, name = parts.spec, parts.task, parts.spec.task.name
    if spec.exchange.payload == "gradient" and task.own_fit:
        text = f'"gradient" needs the built-in loop, and task {name!r} has its own fit; choose "delta"'
        yield "exchange.payload", text
    if PARTITIONS.load(spec.data.partition, "data").needs == "keys" and not task.has_keys:
        text = f'"{spec.data.partition}" needs a task that names the owner of each example, and {name!r} does not; '
        yield "data.partition", text + "choose iid, dirichlet, shards or local"
    if spec.evaluation.where == "central" and not parts.central:
        text = f'"central" needs data on the coordinator, and task {name!r} has none here; choose "nodes" or "auto"'
        yield "evaluation.where", text


def _numbers(parts: Parts) -> Complaints:
    if parts.rule is None:
        return
    needed = _least(parts.rule, parts.fallback)
    participants = parts.spec.rounds.participants
    if isinstance(participants, int) and participants < needed:
        text = f"{parts.spec.aggregation.name!r} needs {needed} updates, so {participants} participants could never"
        yield "rounds.participants", text + " close a round"
    fewest = max(needed, _fewest(parts.spec))
    if parts.fallback is None and (reason := parts.rule.refusal(fewest)):
        yield "aggregation.options", f"a round has at least {fewest} updates, and {reason}"


def _votes(parts: Parts) -> Complaints:
    spec, rule, codec = parts.spec, parts.rule, parts.codec
    votes = rule is not None and rule.votes
    if codec.signs and not votes:
        text = f"{spec.exchange.codec!r} sends signs only, and {spec.aggregation.name!r} needs magnitudes; choose the "
        yield (
            "exchange.codec",
            text + 'rule "majority-vote", or a codec with magnitudes such as "scaled-sign" or "int8"',
        )
    if not (votes or codec.signs):
        return
    if spec.weights.by == "examples":
        yield "weights.by", 'every vote counts the same; write weights.by = "equal"'
    if spec.exchange.payload == "parameters":
        yield "exchange.payload", 'the sign of a parameter says nothing; choose "delta" or "gradient"'
    if parts.layout.part("buffers").tensors:
        yield "task.name", "the model has buffers (BatchNorm statistics), on which nobody can vote; use a model without"
    if spec.exchange.downlink == "change" and parts.optimizer.slots:
        text = f"one bit a coordinate cannot carry the steps of {spec.server_optimizer.name!r}; choose "
        yield "exchange.downlink", text + 'downlink = "model", or the server optimizer "sgd"'


def _feedback(parts: Parts) -> Complaints:
    spec, codec = parts.spec, parts.codec
    coarse = type(codec).feedback or uses_feedback(spec.exchange, codec) or not codec.contracts
    if spec.exchange.payload == "parameters" and coarse and not codec.signs:
        text = (
            f"{spec.exchange.codec!r} leaves out too much of a vector that is not a change (error feedback adds that "
        )
        yield "exchange.payload", text + 'up over the rounds); choose "delta" or "gradient"'
    if spec.exchange.downlink == "change" and not (codec.downlink().contracts or codec.downlink().signs):
        text = f'{spec.exchange.codec!r} may lose more of a change than there was; choose "auto" or "model"'
        yield "exchange.downlink", text
    if uses_feedback(spec.exchange, codec):
        if not (codec.contracts or codec.private):
            text = f"{spec.exchange.codec!r} may lose more than there was, and feedback of it grows without bound; "
            yield "exchange.error_feedback", text + "leave it out"
        if codec.private:
            text = "what a private codec hides must not come out with the next update; leave error_feedback out"
            yield "exchange.error_feedback", text
    if spec.exchange.worker_momentum and spec.exchange.payload == "parameters":
        yield "exchange.worker_momentum", 'it needs the payload "delta" or "gradient"'
    if codec.private and spec.exchange.worker_momentum:
        yield "exchange.worker_momentum", "each gradient is released once; leave it out with a private codec"


def _privacy(parts: Parts) -> Complaints:
    spec = parts.spec
    if not parts.codec.private:
        return
    if spec.exchange.payload != "gradient":
        text = f'{spec.exchange.codec!r} clips the gradient of each example; choose payload = "gradient"'
        yield "exchange.payload", text + " (and training.local_steps = 1)"
    if parts.layout.part("buffers").tensors:
        yield "task.name", "per-example privacy needs a model without buffers (BatchNorm mixes the examples)"


def _differential_privacy(parts: Parts) -> Complaints:
    spec, section = parts.spec, parts.spec.privacy
    if section is None:
        if spec.stop.epsilon is not None and parts.codec.privacy is None and parts.method.privacy is None:
            yield "stop.epsilon", "the run spends no privacy that is accounted for; write [privacy], or leave it out"
        return
    if not (spec.facts.coordinated and spec.facts.synchronous):
        yield "privacy", 'its account goes by rounds; choose mode = "rounds"'
        return
    if parts.codec.private:
        yield "exchange.codec", f"{spec.exchange.codec!r} adds noise of its own; choose another, or leave [privacy] out"
    if parts.layout.part("buffers").tensors:
        yield "task.name", "the model has buffers (BatchNorm statistics), which get no noise; use a model without"
    method, name = parts.method, spec.method.name
    sent = [part for part in parts_of(method, RunForm(spec, parts.layout, lambda: parts.task)) if part.up is not None]
    is_plain = all(part.combine == RULE or part.in_model for part in sent)
    if not (is_plain and method.global_model and method.phases == 1):
        yield "method.name", f"{name!r} sends more than one vector for the rule, and the rest would get no noise"
    yield from _hiding_examples(parts) if section.unit == "example" else _hiding_nodes(parts)


def _stop(parts: Parts) -> Complaints:
    """Rules that go by a metric need somebody who measures it before the run's end."""
    spec = parts.spec
    measured = parts.central > 0 and spec.evaluation.where != "nodes"
    on_nodes = spec.facts.synchronous and spec.evaluation.where != "central"
    if not spec.stop.by_metric or not spec.facts.coordinated or measured or on_nodes:
        return
    who = "the task has no central data" if spec.evaluation.where != "nodes" else "nodes evaluate the last version only"
    for key in spec.stop.by_metric:
        yield f"stop.{key}", f"{who}, so that nothing is known of a version before; leave it out"


def _hiding_examples(parts: Parts) -> Complaints:
    spec, training = parts.spec, parts.spec.training
    if parts.task.own_fit:
        yield "privacy.unit", f"task {spec.task.name!r} has its own fit, which gives no gradients of single examples"
    if parts.method.recipe(1) is not None:
        yield "method.name", f"{spec.method.name!r} changes the training, whose gradients are of single examples here"
    if spec.exchange.payload == "gradient":
        yield "exchange.payload", 'a gradient that hides examples is one step: choose "delta" and local_steps = 1'
    if training.clip_norm is not None:
        yield "training.clip_norm", "each example's gradient is clipped by itself (privacy.clip); leave it out"
    if training.local_first or training.workers:
        key = "local_first" if training.local_first else "workers"
        yield f"training.{key}", 'training with privacy.unit = "example" does not read it; leave it out'
    if spec.evaluation.where in ("nodes", "both"):
        text = 'what a node tells of its data is not accounted for, so it tells nothing; choose "central" or "auto"'
        yield "evaluation.where", text


def _hiding_nodes(parts: Parts) -> Complaints:
    spec, section = parts.spec, parts.spec.aggregation
    if section.name != "mean" or section.pre or section.fallback is not None:
        key = "name" if section.name != "mean" else "pre" if section.pre else "fallback"
        text = 'the noise is for the mean of updates that are clipped one by one; write name = "mean", without pre and '
        yield f"aggregation.{key}", text + "fallback"
    if spec.weights.by != "equal":
        yield "weights.by", 'the noise is for nodes that count the same; write weights.by = "equal"'
    if parts.codec.summarises:
        yield "exchange.codec", f"{spec.exchange.codec!r} tells all nodes what the updates were like; choose another"


def _fallback(parts: Parts) -> Complaints:
    rule, fallback = parts.rule, parts.fallback
    if rule is None or fallback is None:
        return
    if fallback.state_names:
        text = (
            f"{parts.spec.aggregation.fallback and parts.spec.aggregation.fallback.name!r} keeps something from round "
        )
        yield "aggregation.fallback", text + 'to round, which a rule for some rounds cannot; choose "median" or "mean"'
    if fallback.votes != rule.votes:
        yield "aggregation.fallback", "a rule that votes and one that does not cannot stand for each other"


def _bound(parts: Parts) -> Complaints:
    f = getattr(parts.rule.options, "f", 0) if parts.rule is not None else 0
    options = parts.codec.options
    if getattr(options, "bound", None) == "broadcast" and getattr(options, "trim", 0) < f:
        text = f"of {f} Byzantine nodes one could claim a huge magnitude, and turn all votes into coin tosses; write "
        yield "exchange.options.trim", text + f"trim = {f}, or a fixed bound"


def _root(parts: Parts) -> Complaints:
    if not any(rule is not None and rule.needs_root for rule in (parts.rule, parts.fallback)):
        return
    if parts.central <= parts.spec.aggregation.root_examples:
        text = f"{parts.spec.aggregation.name!r} takes them from the task's {parts.central} central examples, of which "
        yield "aggregation.root_examples", text + "some must be left for the evaluation; choose fewer, or another rule"


def _losses(parts: Parts) -> Complaints:
    needed = any(rule is not None and rule.needs_losses for rule in (parts.rule, parts.fallback))
    if needed and parts.spec.exchange.payload == "gradient":
        text = f"{parts.spec.aggregation.name!r} goes by what local training changed, and by its loss; choose "
        yield "exchange.payload", text + '"delta" or "parameters"'


def _asynchronous(parts: Parts) -> Complaints:
    spec = parts.spec
    if not spec.facts.coordinated:  # nothing of it is aggregated here: its protocol says what it does not go with
        return
    if spec.facts.synchronous:
        if getattr(parts.optimizer.options, "staleness_aware", False):
            yield "server_optimizer.options.staleness_aware", 'it has no meaning but in mode = "async"'
        return
    if spec.aggregation.pre or spec.aggregation.fallback:
        yield "aggregation.pre", "an asynchronous policy sees one update at a time; leave pre and fallback out"
    if parts.codec.signs:
        yield "exchange.codec", f'{spec.exchange.codec!r} needs the votes of a whole round; choose mode = "rounds"'
    if parts.codec.summarises and not parts.codec.signs:
        text = f"{spec.exchange.codec!r} goes by what the last round's updates were like; choose another codec"
        yield "exchange.codec", text
    if spec.exchange.downlink == "change":
        yield "exchange.downlink", 'nodes of an asynchronous run skip versions; choose "auto" or "model"'
    if by_policy(spec) and uses_feedback(spec.exchange, parts.codec):
        text = "what a node keeps follows the verdicts on its updates, which come late in an asynchronous run; "
        yield "exchange.error_feedback", text + "write error_feedback = false"
    if spec.exchange.worker_momentum:
        yield "exchange.worker_momentum", "a node's average follows the verdicts on its updates; leave it out"
    yield from _policy(parts)


def _policy(parts: Parts) -> Complaints:
    spec, policy = parts.spec, parts.policy
    if policy is None:
        return
    written = {f"{spec.facts.section}.min_nodes": spec.min_nodes if spec.min_nodes > 1 else None}
    written["data.parts"] = spec.data.parts
    for key, nodes in written.items():
        if nodes is not None and nodes < policy.min_nodes():
            text = f"{spec.aggregation.name!r} with these options needs at least {policy.min_nodes()} nodes"
            yield key, f"{text}, not {nodes}"
    if policy.compares_gradients:
        yield from _comparing(parts)
    elif spec.exchange.payload == "parameters" and not policy.mixes_parameters:
        text = 'parameters of an old version cannot be compared with the newest; choose "delta" or "gradient"'
        yield "exchange.payload", text


def _comparing(parts: Parts) -> Complaints:
    spec = parts.spec
    if parts.codec.stochastic or type(parts.codec).feedback:
        what = "draws at random" if parts.codec.stochastic else "loses of each"
        text = f"this policy takes differences of successive gradients, and what {spec.exchange.codec!r} {what} "
        yield "exchange.codec", text + 'drowns them; choose "none", or a codec that only rounds, such as "bf16"'
    if spec.exchange.payload != "gradient":
        text = "this policy bounds how fast a gradient changes with the model, not what local training does; "
        yield "exchange.payload", text + 'choose "gradient" (and training.local_steps = 1)'


def _method(parts: Parts) -> Complaints:
    spec, method = parts.spec, parts.method
    name = spec.method.name
    if spec.evaluation.only:
        yield from _evaluation_only(parts)
        return
    if spec.mode not in method.modes:
        known = " or ".join(f'"{mode}"' for mode in sorted(method.modes))
        yield "mode", f"method {name!r} works in mode {known} only"
    if not method.global_model:
        yield from _no_model(parts)
    if method.on_retry != "keep":
        text = f"{name!r} wants fresh answers where a round is tried again, which this version does not have"
        yield "method.name", text + "; choose another method"
    if method.phases > 1:
        yield from _phases(parts)
    recipe = method.recipe(1)
    if recipe is not None and recipe.trains:
        if parts.task.own_fit:
            text = f"{name!r} changes the built-in loop, and task {spec.task.name!r} has its own fit"
            yield "method.name", text + '; choose "none", or another task'
        if parts.codec.private:
            text = f"{name!r} changes gradients, and {spec.exchange.codec!r} releases those of single examples"
            yield "method.name", text + '; choose "none", or another codec'
    yield from _local(parts)
    yield from _local_first(parts)
    yield from method.refusals(parts)


def _evaluation_only(parts: Parts) -> Complaints:
    section, method = parts.spec.model, parts.method
    if isinstance(method, EvaluationOnly) and not method.trained.global_model:
        text = f"{parts.spec.method.name!r} has no global model that nodes could evaluate; what they measured is among "
        yield "evaluation.only", text + "the metrics of the run itself"
        return
    if parts.local and not (section.run[0] or section.parent):
        text = f"{len(parts.local)} tensors ({min(parts.local)}, ...) stay on the nodes, who keep them by run; "
        yield "model.initial", text + 'name the run that trained them ("run:NAME"), not a file'


def _no_model(parts: Parts) -> Complaints:
    spec, name = parts.spec, parts.spec.method.name
    if not spec.facts.synchronous:
        yield "mode", f'a run of {name!r} has no global model, whose versions go on; choose mode = "rounds"'
    if spec.evaluation.where in ("central", "both"):
        text = f"{name!r} has no global model that the coordinator could evaluate; choose "
        yield "evaluation.where", text + '"nodes" or "auto"'
    usual = {
        "aggregation.name": (spec.aggregation.name, "mean"),
        "server_optimizer.name": (spec.server_optimizer.name, "sgd"),
        "exchange.codec": (spec.exchange.codec, "none"),
        "exchange.payload": (spec.exchange.payload, "delta"),
    }
    for key, (value, default) in usual.items():
        if value != default:
            yield key, f"{name!r} has no global model, to which {value!r} could be applied; leave it out"
    if spec.exchange.worker_momentum:
        yield "exchange.worker_momentum", f"{name!r} has no global model; leave it out"
    for key in KEYS:
        if getattr(spec.exchange, key) != type(spec.exchange).model_fields[key].default:
            yield f"exchange.{key}", f"{name!r} has no global model, of which some could be shared; leave it out"


def _phases(parts: Parts) -> Complaints:
    spec, name = parts.spec, parts.spec.method.name
    if not spec.facts.synchronous:
        yield "mode", f'the rounds of {name!r} have several phases; choose mode = "rounds"'
    if parts.codec.summarises:
        text = (
            f"{spec.exchange.codec!r} goes by what all updates of the last round were like, and {name!r} leaves some "
        )
        yield "exchange.codec", text + "on their nodes; choose another codec"


def _local(parts: Parts) -> Complaints:
    spec = parts.spec
    is_chosen = bool(spec.exchange.local) or spec.exchange.share != ("*",)
    key, who = ("exchange.share", "exchange.share") if is_chosen else ("method.name", repr(spec.method.name))
    if not is_chosen and parts.task.stays:
        key, who = "task.name", repr(spec.task.name)
    if parts.local and parts.method.global_model and not parts.layout.part("model").numel:
        yield key, f"{who} leaves every parameter on its node; nothing is left to be exchanged"
    if parts.local and spec.evaluation.where in ("central", "both"):
        text = f"the coordinator lacks the tensors that {who} leaves on the nodes; choose "
        yield "evaluation.where", text + '"nodes" or "auto"'
    if parts.local and any(rule is not None and rule.needs_root for rule in (parts.rule, parts.fallback)):
        text = f"{spec.aggregation.name!r} evaluates on the coordinator, which lacks the tensors that {who} leaves "
        yield "aggregation.name", text + "on the nodes; choose a rule without trusted data"


def _local_first(parts: Parts) -> Complaints:
    spec = parts.spec
    if not spec.training.local_first:
        return
    key = "training.local_first"
    if not parts.local:
        yield key, "nothing of the model stays local; say what does (exchange.local), or leave it out"
    recipe = parts.method.recipe(1)
    if recipe is not None and not recipe.trains:
        yield key, f"{spec.method.name!r} trains nothing; leave it out"
    if parts.task.own_fit:
        yield key, f"it changes the built-in loop, and task {spec.task.name!r} has its own fit; leave it out"


Check = Callable[[Parts], Complaints]
CHECKS: tuple[Check, ...] = (
    _method,
    _task,
    _numbers,
    _votes,
    _feedback,
    _fallback,
    _bound,
    _privacy,
    _differential_privacy,
    _root,
    _losses,
    _asynchronous,
    _stop,
)


def _fewest(spec: RunSpec) -> int:
    """With how many updates a round can close at the least, as far as the specification alone tells."""
    section = spec.rounds
    invited = section.participants if isinstance(section.participants, int) else section.min_nodes
    return max(section.min_nodes, math.ceil(section.quorum * invited))


def _least(rule: Aggregator, fallback: Aggregator | None) -> int:
    least = rule.min_updates()
    return least if fallback is None else min(least, fallback.min_updates())
