"""Leader SGD: nodes are pulled towards the best of them, and only the best send their models."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from covey.errors import TaskError
from covey.layout import Layout, TensorSpec
from covey.learning.common import count_of, drawn, required
from covey.learning.data import size_of
from covey.learning.models.entries import unwrapped
from covey.learning.models.flat import cut, flat_of, load_flat
from covey.learning.recipe import PlainRecipe, RecipeContext
from covey.learning.task import LossOutput
from covey.learning.training.loop import evaluate
from covey.methods.averaging import MODEL, Averaging
from covey.methods.contract import (
    Answer,
    Close,
    Combination,
    FinishContext,
    Made,
    Open,
    Part,
    PlanContext,
    PluginOptions,
    RunForm,
)
from covey.parts import COLLECT

BID, OWN, LEADERS = "bid", "own", "leaders"
MAX_BID_BYTES = 64
UPLOAD = 2
"""The phase in which the best bidders send their models."""


class LsgdOptions(PluginOptions):
    """Options of `lsgd`."""

    pull: float = Field(default=0.1, ge=0, le=1)
    """By which share of the distance a node moves towards its group's leader before each round's training; 0: alone."""
    groups: int = Field(default=1, ge=1, le=64)
    """Into how many groups the nodes are dealt, in the order of the roster, one after the other."""
    global_pull: float = Field(default=0.1, ge=0, le=1)
    """The same towards the best of all leaders; with several groups only."""
    global_every: int = Field(default=1, ge=1)
    """Rounds between two pulls towards the best of all."""
    rates: tuple[Annotated[float, Field(gt=0, le=1e6)], ...] = Field(default=(), max_length=1024)
    """Factors on the learning rate, dealt to the nodes of each group in the order of the roster, one after the other:
    who leads shows which is good; none: all have the same."""
    step_pull: float = Field(default=0.0, ge=0, lt=1)
    """By which share of the distance a node moves towards its group's leader after each local step."""
    bids: Literal["own", "common", "central"] = "common"
    """What a bid is the loss of: a node's last training batches, examples that all nodes have (`Task.common_data`), or
    the coordinator's central data; then every node sends its model, and the coordinator measures it."""
    window: int = Field(default=10, ge=1)
    """Of how many of the last training batches the mean is the bid (`bids = "own"`)."""
    examples: int = Field(default=512, ge=1)
    """How many common examples a bid is measured on, drawn anew in each round, the same on all nodes."""
    audit: bool = False
    """Whether the coordinator measures a leader's model on central data before it follows it."""
    tolerance: float = Field(default=1.0, ge=0)
    """By how much the audited loss may be above the bid. Who is better than the leader before is never refused."""


class Lsgd(Averaging):
    """Each node keeps a model of its own, which a pull holds near that of the node with the least loss.

    Teng, Gao, Chus, Choromanska, Goldfarb and Weller, "Leader Stochastic Gradient Descent for Distributed Training of
    Deep Learning Models" (NeurIPS 2019, arXiv 1905.10395), algorithm 1. With x_i the node's model, z_g that of its
    group's leader, and z that of the best leader, both as the round before left them, a round is

        x_i <- x_i + pull (z_g - x_i)    x_i <- x_i + global_pull (z - x_i), every `global_every` rounds
        the run's local steps            x_i <- x_i + step_pull (z_g - x_i), after each of them

    Phase 1: each node trains, and sends its bid, a loss as text; its model stays. Phase 2: the best bidder of each
    group sends its model, and the next one where that does not come or an audit refuses it. The best leader's is the
    run's next model. Part `own` (a node's x_i, float32 `[d]`) never leaves the node; part `leaders` (float32
    `[groups, d]`) comes down where there are several groups.

    A node that bids what it likes is a leader whenever it likes. `audit` bounds that: a leader must be at most
    `tolerance` worse on central data than it bid, or better than the leader before. Bids on a node's own examples elect
    whoever has the easiest ones, so they are for data that are dealt at random (`iid`).

    Deviations: exchanges are rounds, so tau is the run's local steps, and tau_G is `global_every` times as much. The
    authors' code pulls after each step too (0.1 divided by the steps between exchanges); here this is `step_pull`, 0 as
    in the algorithm. It can also give each worker a learning rate of its own: `rates`. A local
    optimizer's momentum begins anew in each round. The model's buffers (BatchNorm statistics)
    come down with the best leader's model, and each node goes on from these.
    """

    Options = LsgdOptions
    options: LsgdOptions
    modes: ClassVar[frozenset[str]] = frozenset({"rounds"})
    phases: ClassVar[int] = 2

    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        """What would not leave the leader's model as it is, and bids that cannot be made, compared or trusted."""
        yield from self._form_refusals(run)
        yield from self._bid_refusals(run)

    def _form_refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        spec = run.spec
        if spec.exchange.payload == "gradient":
            yield "exchange.payload", '"lsgd" follows what local training came to; choose "delta" or "parameters"'
        if spec.exchange.worker_momentum:
            yield "exchange.worker_momentum", '"lsgd" follows a model, not an average of updates; leave it out'
        feedback = run.codec.feedback if spec.exchange.error_feedback is None else spec.exchange.error_feedback
        if run.codec.signs or feedback:
            text = f"what {spec.exchange.codec!r} leaves out of a leader's model nobody adds later; choose "
            yield "exchange.codec", text + '"none", or a codec without error feedback such as "bf16"'
        if run.optimizer.slots or getattr(run.optimizer.options, "learning_rate", 1.0) != 1.0:
            text = 'the next model is the leader\'s, and no step towards it; choose "sgd" with learning_rate = 1'
            yield "server_optimizer.name", text
        for key, rule in (("aggregation.name", run.rule), ("aggregation.fallback", run.fallback)):
            if rule is not None and (rule.min_updates() > 1 or rule.needs_root):
                text = 'a rule would see one update only, the best leader\'s; choose "mean", and audit = true in '
                yield key, text + "[method.options] where nodes may lie"

    def _bid_refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        options, spec = self.options, run.spec
        audited = options.audit or options.bids == "central"
        if run.rule is not None and run.rule.robust and not audited:
            text = f"{spec.aggregation.name!r} assumes that nodes may lie, and the one with the least bid is followed, "
            yield "method.options.audit", text + "whoever it is; write audit = true"
        if audited and not run.central:
            key = "audit" if options.audit else "bids"
            text = f"leaders are measured on central data, and task {spec.task.name!r} has none here; "
            yield f"method.options.{key}", text + "give it some, or leave this out"
        if audited and run.local:
            text = "leaders are measured on the coordinator, which lacks what stays on the nodes; leave out audit, and "
            yield "method.options.audit", text + 'choose bids = "common"'
        if options.bids == "own" and spec.data.partition != "iid":
            text = "losses on a node's own examples elect the node with the easiest ones; choose "
            yield "method.options.bids", text + '"common" or "central", or deal the data with data.partition = "iid"'
        if options.bids == "common" and not count_of(run.task):
            text = f"task {spec.task.name!r} has no examples that all nodes have (Task.common_data); choose "
            yield "method.options.bids", text + '"central", or "own" with data.partition = "iid"'

    def parts(self, form: RunForm) -> Sequence[Part]:
        """`bid` and the node's `own` model; those of plain averaging, in phase 2; and `leaders` of several groups."""
        layout, groups = _parameters(form.layout), self.options.groups
        parts = [Part(name=BID, max_bytes=MAX_BID_BYTES, up=1, combine=COLLECT)]
        parts += [replace(part, up=UPLOAD) for part in super().parts(form)]
        parts.append(Part(name=OWN, layout=layout, keep=frozenset({"node-always"})))
        if groups > 1:
            table = Layout.of([TensorSpec(LEADERS, "float32", (groups, layout.numel))])
            parts.append(Part(name=LEADERS, layout=table, down=1, keep=frozenset({"version"})))
        return parts

    def recipe(self, phase: int) -> Follower:
        """The pull, and the bid."""
        return Follower(self.options)

    def plan(
        self, phase: int, answers: Sequence[Answer], state: Mapping[str, Tensor], context: PlanContext
    ) -> Open | Close:
        """Ask the best bidder of each group, the next where one fails; close with the best of those that did not."""
        election = Election(self.options, answers, context)
        if asked := election.wanted():
            return Open(UPLOAD, dict.fromkeys(asked, ""), election.rejected)
        leaders = sorted((leader, group) for group, leader in election.leaders.items())
        chosen = {leader.node: str(group) for leader, group in leaders}
        return Close(tuple(leader.node for leader, _ in leaders[:1]), election.rejected, chosen)

    def finish(self, parts: Mapping[str, Tensor], state: Mapping[str, Tensor], context: FinishContext) -> Made:
        """The leaders' models, float32 `[groups * d]`; a group without one in this round keeps the one before."""
        groups, d = self.options.groups, context.base.d
        if groups == 1:
            return Made()
        old = state.get(LEADERS)
        base = context.base.dense()
        table = base.repeat(groups, 1) if old is None else old.view(groups, d).clone()
        chosen = context.closed.chosen if context.closed is not None else {}
        for answer in context.answers:
            if answer.phase == UPLOAD and answer.node in chosen:
                table[int(chosen[answer.node])] = base + answer.parts[MODEL].dense()
        return Made({LEADERS: table.flatten()})


class Candidate(NamedTuple):
    """Who may lead: by loss, then by place in the roster."""

    loss: float
    place: int
    node: str


class Election:
    """A round's bids, and the models that came so far; a function of the answers.

    Args:
        options: The method's.
        answers: All of the round.
        context: The round.

    Attributes:
        rejected: Node to reason.
        leaders: The leader of each group that has one so far.
    """

    def __init__(self, options: LsgdOptions, answers: Sequence[Answer], context: PlanContext) -> None:
        self._options, self._context = options, context
        self._places = {node: place for place, node in enumerate(context.roster)}
        received = [answer for answer in answers if answer.verdict == "received"]
        self._asked = {answer.node for answer in answers if answer.phase == UPLOAD}
        bids = {answer.node: _number(answer.parts[BID]) for answer in received if answer.phase == 1}
        self.rejected = {node: "its bid is no finite number" for node, bid in bids.items() if bid is None}
        self._bids = {node: bid for node, bid in bids.items() if bid is not None}
        self.leaders: dict[int, Candidate] = {}
        for answer in received:
            if answer.phase == UPLOAD and answer.node in self._bids:
                self._consider(answer)

    def wanted(self) -> list[str]:
        """Who is to send a model next; nobody: the leaders stand."""
        if self._options.bids == "central":
            return [] if self._asked else list(self._bids)
        left: dict[int, list[Candidate]] = {}
        for node, bid in self._bids.items():
            group = self._group(node)
            if node not in self._asked and group not in self.leaders:
                left.setdefault(group, []).append(Candidate(bid, self._places[node], node))
        return [min(candidates).node for _, candidates in sorted(left.items())]

    def _consider(self, answer: Answer) -> None:
        """Have a node lead its group, unless the audit refuses it, or another one of the group is better."""
        node, loss = answer.node, self._bids[answer.node]
        if self._options.audit or self._options.bids == "central":
            bid, loss = loss, _loss(self._context.audit(answer.parts[MODEL]))
            if not math.isfinite(loss) or (self._options.bids != "central" and self._is_lie(bid, loss)):
                self.rejected[node] = f"it bid {bid:.3f}, and the audit measures {loss:.3f}"
                return
        candidate, group = Candidate(loss, self._places[node], node), self._group(node)
        self.leaders[group] = min(candidate, self.leaders.get(group, candidate))

    def _is_lie(self, bid: float, measured: float) -> bool:
        return measured > bid + self._options.tolerance and measured > self._before

    @cached_property
    def _before(self) -> float:
        """The loss of the leader before."""
        return _loss(self._context.audit(None))

    def _group(self, node: str) -> int:
        return self._places[node] % self._options.groups


class Follower(PlainRecipe):
    """Trains a node's own model, pulled towards its leaders, and bids with it."""

    def __init__(self, options: LsgdOptions) -> None:
        self._options = options

    @torch.no_grad()
    def begin(self, context: RecipeContext) -> None:
        """Load the node's own model, and move it towards the leaders. The first round begins at the run's model."""
        self._context, self._layout = context, _parameters(context.inputs.layout)
        options, d = self._options, self._layout.numel
        if options.rates:
            self.rate = options.rates[context.roster_index // options.groups % len(options.rates)]
        best = flat_of(context.model, self._layout)
        own, table = context.inputs.state.get(OWN, best), context.inputs.parts.get(LEADERS)
        leader = best if table is None else table.view(options.groups, d)[context.roster_index % options.groups]
        own = torch.lerp(own, leader, options.pull)
        if options.groups > 1 and (context.round - 1) % options.global_every == 0:
            own = torch.lerp(own, best, options.global_pull)
        load_flat(context.model, self._layout, own)
        self._losses: deque[Tensor] = deque(maxlen=options.window)
        self._pulls = self._targets(leader) if options.step_pull else []

    def _targets(self, leader: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        targets = cut(leader, self._layout)
        named = unwrapped(self._context.model).named_parameters()
        return [(p, targets[name].to(p.device, p.dtype)) for name, p in named if p.requires_grad]

    def loss(self, model: nn.Module, batch: object, base: LossOutput) -> Tensor:
        """The task's own, noted."""
        self._losses.append(base.loss.detach())
        return base.loss

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        """Move towards the group's leader."""
        for parameter, target in self._pulls:
            parameter.lerp_(target, self._options.step_pull)

    def finish(self) -> Mapping[str, Tensor | bytes]:
        """The bid, as text; the model is the node's state.

        Raises:
            TaskError: There is nothing to bid with.
        """
        self._context.inputs.state[OWN] = flat_of(self._context.model, self._layout)
        return {BID: repr(self._bid()).encode()}

    def _bid(self) -> float:
        if self._options.bids == "common":
            return self._common_loss()
        if not self._losses:
            raise TaskError('there was no local step, and "lsgd" bids with its loss; set training.local_steps')
        return float(torch.stack(list(self._losses)).double().mean())

    def _common_loss(self) -> float:
        context, options = self._context, self._options
        data = required(context.inputs.common(), 'the bids of "lsgd"')
        rows = drawn(size_of(data), min(options.examples, size_of(data)), context.seed, "bids", context.round)
        size = context.training.batch_size
        stats = evaluate(context.task, context.model, data, size, context.device, rows)
        return _loss({name: stat.ratio for name, stat in stats.items()})


def _parameters(layout: Layout) -> Layout:
    """The model's parameters as float32."""
    return Layout(tuple(replace(tensor, dtype="float32") for tensor in layout.part("model").tensors))


def _number(text: bytes) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _loss(metrics: Mapping[str, float]) -> float:
    if "loss" not in metrics:
        raise TaskError('"lsgd" compares models by their loss; let `Task.evaluate` return a metric named "loss"')
    return metrics["loss"]
