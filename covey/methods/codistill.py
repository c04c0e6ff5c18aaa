"""Codistillation: nodes learn from what the others predict, and keep models of their own."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import structlog
import torch
from torch import Tensor, nn
from torch.nn import functional

from covey.errors import TaskError
from covey.layout import Layout, TensorSpec
from covey.learning.common import count_of, drawn, ids_of, places, required
from covey.learning.data import batches, size_of
from covey.learning.models.entries import unwrapped
from covey.learning.models.flat import flat_of, load_flat
from covey.learning.models.state import tensors_of
from covey.learning.recipe import PlainRecipe, RecipeContext
from covey.learning.returns import described, method_of
from covey.learning.schedules import factor
from covey.learning.task import LossOutput, collate_of, loss_of
from covey.methods.averaging import BUFFERS, Averaging
from covey.methods.contract import Combination, Method, Part, RunForm
from covey.parts import COLLECT, Keep
from covey.spec.codistillation import CodistillOptions

log = structlog.get_logger(room="worker")
MEMBER, LOGITS, SAMPLES = "member", "logits", "samples"
MAX_LOGIT = 100.0
"""What comes from another node is cut to this, so that no single number makes a square infinite."""
AT = "method.options.schedule"


class Codistill(Method):
    """Each node trains a model of its own, and is drawn towards what the others predict. There is no global model.

    Anil, Pereyra, Passos, Ormandi, Dahl and Hinton, "Large scale distributed neural network training through online
    distillation" (ICLR 2018, arXiv 1804.03235), algorithm 1, and Sodhani, Delalleau, Assran, Sinha, Ballas and Rabbat,
    "A Closer Look at Codistillation for Distributed Training" (arXiv 2010.02838). With f_i a node's model and o_j
    what another node's model, as it was an exchange before, says of the same examples x, a step minimises

        loss(f_i) + weight / (n - 1) sum_j D(f_i(x), o_j)

    with D the Kullback-Leibler divergence from softmax o_j, or the mean square of the logits' differences; both are
    computed from the mean over j, which changes D by what does not depend on f_i. In a round of T steps of B examples:

    Predictions (part `logits`, float32 `[T, B, classes]`, and `samples`, int64 `[T * B]`): when a round's training
    ends, each node predicts the common examples of the *next* round's T batches, which all nodes draw from the run's
    seed, and sends this with the examples' ids; the others learn from it in the next round, at most T steps later.
    Predictions are matched by id, never by position, and what has none is left out: a late node, or one with other
    data, costs nobody anything. The models, of any architecture with so many classes, never leave their nodes.

    Checkpoints (part `member`, float32 `[d]`): each node gets the newest model of every other one, and compares on its
    own training batches. For n nodes these are n models up and n (n - 1) down in a round, and n - 1 further forward
    passes in a step. A node that is gone is followed as it was.

    What a hostile peer may send is a prediction like any other: with `kl` the gradient of its share is at most
    sqrt(2) weight / (n - 1) in the logits of an example, whatever it says; with `mse` there is only a cut at 100.

    Deviations: all nodes begin with the run's first model, and exchange once a round, so T is its local steps. Sodhani
    et al. say that regularisation has to be weakened as the nodes regularise one another:
    [training.schedule.weight_decay] and the schedule of `label_smoothing` are for that. The weight's default is 1, as
    in public code; we could not confirm the paper's.
    """

    Options = CodistillOptions
    options: CodistillOptions
    global_model: ClassVar[bool] = False
    member: ClassVar[str] = MEMBER
    at: ClassVar[str] = "method.options"
    """Where its options stand in the user's file."""

    @property
    def _predicts(self) -> bool:
        return self.options.exchange == "predictions"

    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        """What an exchange needs and the run does not have."""
        yield from self.options.refusals(run.spec.training, self.at)
        yield from self._of_predictions(run) if self._predicts else self._of_checkpoints(run)

    def _of_predictions(self, run: Combination) -> Iterator[tuple[str, str]]:
        spec = run.spec
        count, size = count_of(run.task), self._batch_size(spec.training.batch_size)
        if count < size:
            task = spec.task.name
            text = f"each step takes {size} examples that all nodes have (Task.common_data), and task {task!r} "
            way_out = f"choose batch_size = {count} at most in [{self.at}]" if count else 'choose "checkpoints"'
            yield f"{self.at}.exchange", f"{text}has {count or 'none'}; {way_out}"

    def _of_checkpoints(self, run: Combination) -> Iterator[tuple[str, str]]:
        if run.layout.part(BUFFERS).tensors:
            text = "the model has buffers (BatchNorm statistics), which do not travel, so that a peer's model would "
            yield f"{self.at}.exchange", text + 'predict nonsense; choose "predictions", or a model without'

    def local(self, model: nn.Module) -> frozenset[str]:
        """With predictions everything: nodes may have different models."""
        return frozenset(tensors_of(model)) if self._predicts else frozenset()

    def parts(self, form: RunForm) -> Sequence[Part]:
        """`logits` and `samples`, or `member`."""
        shared: dict[str, Any] = {"up": 1, "down": 1, "audience": "others", "combine": COLLECT}
        if not self._predicts:
            layout = Layout(tuple(replace(t, dtype="float32") for t in form.layout.part("model").tensors))
            return (Part(name=MEMBER, layout=layout, keep=frozenset({"version", "node-always"}), **shared),)
        training = form.spec.training
        steps, size = training.local_steps or 1, self._batch_size(training.batch_size)
        tables = (
            TensorSpec(LOGITS, "float32", (steps, size, self.options.classes or 1)),
            TensorSpec(SAMPLES, "int64", (steps * size,)),
        )
        keep: frozenset[Keep] = frozenset({"version"})
        return tuple(Part(name=table.name, layout=Layout.of([table]), keep=keep, **shared) for table in tables)

    def recipe(self, phase: int) -> Codistilled:
        """The further terms of the loss, and what is sent."""
        return Predicting(self.options) if self._predicts else Comparing(self.options)

    def among_peers(self, ahead: int) -> Method:
        """As `PeerCodistill`."""
        return PeerCodistill(self.options, ahead)

    def _batch_size(self, training: int) -> int:
        return self.options.batch_size or training


class PeerCodistill(Codistill):
    """`codistill` among peers: a node's model is in its own file, and what it sends reaches its neighbours only.

    Args:
        options: As checked.
        ahead: For how many steps later than the next predictions are.
    """

    modes: ClassVar[frozenset[str]] = frozenset({"gossip"})
    global_model: ClassVar[bool] = True
    member: ClassVar[str] = ""
    at: ClassVar[str] = "gossip.protocol.options"

    def __init__(self, options: CodistillOptions, ahead: int) -> None:
        super().__init__(options.model_dump(exclude_unset=True))
        self._ahead = ahead

    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        """What only the task can tell: the protocol says the rest."""
        yield from self._of_predictions(run) if self._predicts else self._of_checkpoints(run)

    def local(self, model: nn.Module) -> frozenset[str]:
        """Nothing: the file of a node's model has all of it."""
        return frozenset()

    def parts(self, form: RunForm) -> Sequence[Part]:
        """The node's own `model` and `buffers`, and what comes from others; a checkpoint is the model's file."""
        up = 1 if self._predicts else None
        exchanged = [replace(part, up=up, keep=frozenset({"version"})) for part in super().parts(form)]
        return [*Averaging().parts(form), *exchanged]

    def recipe(self, phase: int) -> Codistilled:
        """As in `codistill`."""
        return Predicting(self.options, self._ahead) if self._predicts else Comparing(self.options)


class Codistilled(PlainRecipe):
    """The terms of the loss, however the others' predictions are had."""

    def __init__(self, options: CodistillOptions) -> None:
        self._options = options

    def begin(self, context: RecipeContext) -> None:
        """This round's weights."""
        options, schedules, burnt = self._options, self._options.schedule, self._options.burn_in
        self._context, self._weight = context, 0.0
        if context.round > burnt:
            since, rounds = context.round - burnt, context.rounds - burnt
            self._weight = options.weight * factor(schedules.get("weight"), since, rounds, f"{AT}.weight")
        of_round = factor(schedules.get("label_smoothing"), context.round, context.rounds, f"{AT}.label_smoothing")
        self._smoothing = min(1.0, options.label_smoothing * of_round)

    def smoothed(self, base: LossOutput) -> Tensor:
        """The task's own loss, with smoothed labels.

        Raises:
            TaskError: They are to be, and the loss says of no logits.
        """
        if not self._smoothing:
            return base.loss
        flat = -functional.log_softmax(self.logits_in(base), dim=1).mean()
        return torch.lerp(base.loss, flat.to(base.loss), self._smoothing)

    def divergence(self, logits: Tensor, target: Tensor) -> Tensor:
        """Of each example: float32 `[n]`, of logits `[n, classes]` from a target as `as_target` makes it."""
        if self._options.divergence == "mse":
            return (logits.float() - target).square().mean(1)
        return -(target * functional.log_softmax(logits.float(), dim=1)).sum(1)

    def as_target(self, logits: Tensor) -> Tensor:
        """Another node's logits as what is averaged over the nodes: probabilities, or themselves; float32."""
        logits = logits.detach().float().clamp(-MAX_LOGIT, MAX_LOGIT)
        return logits if self._options.divergence == "mse" else functional.softmax(logits, dim=1)

    def logits_in(self, output: LossOutput) -> Tensor:
        """The logits `[n, classes]` of a batch.

        Raises:
            TaskError: There are none, or of another shape than this run's.
        """
        logits, wanted = output.logits, self._options.classes
        if logits is None or logits.ndim != 2 or (wanted is not None and logits.shape[1] != wanted):
            what, shape = method_of(self._context.task, "loss"), f"[n, {wanted if wanted is not None else 'classes'}]"
            raise TaskError(
                f'{what} gives {described(logits)} as logits, and "codistill" needs {shape}: give them in its '
                "LossOutput, and say in method.options.classes how many classes there are"
            )
        return logits


class Predicting(Codistilled):
    """Learns from predictions that came, and makes those for a later round.

    Args:
        options: The run's.
        ahead: For how many rounds later than the next they are.
    """

    def __init__(self, options: CodistillOptions, ahead: int = 0) -> None:
        super().__init__(options)
        self._ahead = ahead

    def begin(self, context: RecipeContext) -> None:
        """Look up what the others say of this round's common examples."""
        super().begin(context)
        self._data = required(context.inputs.common(), '"codistill"')
        self._size = self._options.batch_size or context.training.batch_size
        self._step = 0
        self._now = self._rows(context.round)
        self._target, self._known = self._matched(ids_of(self._data, self._now)) if self._weight else (None, None)

    def loss(self, model: nn.Module, batch: object, base: LossOutput) -> Tensor:
        """The node's own loss; that of common examples; and how far their predictions are from the others'."""
        loss, options, weight = self.smoothed(base), self._options, self._weight
        at = slice(self._step * self._size, (self._step + 1) * self._size)
        self._step += 1
        known = self._known is not None and bool(self._known[at].any())
        if not known and not options.learn_common:
            return loss
        output = loss_of(self._context.task, model, next(self._batched(self._now[at])))
        if options.learn_common:
            loss = loss + output.loss
        if known and self._target is not None and self._known is not None:
            logits = self.logits_in(output)
            target, mask = self._target[at].to(logits.device), self._known[at].to(logits.device)
            loss = loss + weight * (self.divergence(logits, target) * mask).mean()
        return loss

    @torch.no_grad()
    def finish(self) -> Mapping[str, Tensor | bytes]:
        """What the trained model says of the later round's common examples."""
        model, rows = self._context.model.eval(), self._rows(self._context.round + 1 + self._ahead)
        outputs = (loss_of(self._context.task, model, batch) for batch in self._batched(rows))
        logits = [self.logits_in(output).reshape(-1).to("cpu", torch.float32) for output in outputs]
        return {LOGITS: torch.cat(logits), SAMPLES: ids_of(self._data, rows)}

    def _rows(self, round: int) -> Tensor:
        """A round's common examples: int64 `[T * B]`."""
        steps = self._context.training.local_steps or 1
        return drawn(size_of(self._data), steps * self._size, self._context.seed, "codistill", round)

    def _batched(self, rows: Tensor) -> Iterator[Any]:
        return batches(self._data, rows, self._size, self._context.device, collate_of(self._context.task))

    def _matched(self, wanted: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The mean of what the others say of some examples, float32 `[n, classes]`, and of which of them any does."""
        inputs = self._context.inputs
        logits, samples = inputs.others.get(LOGITS, {}), inputs.others.get(SAMPLES, {})
        total = torch.zeros(len(wanted), self._options.classes or 1)
        count = torch.zeros(len(wanted), 1)
        for node in sorted(logits):
            at = places(wanted, samples[node])
            known = at >= 0
            total[known] += self.as_target(logits[node].view(-1, total.shape[1])[at[known]])
            count += known[:, None]
        if logits and not count.any():
            log.warning("nobody predicted an example of this round", nodes=len(logits), round=self._context.round)
        return total / count.clamp(min=1), count[:, 0] > 0


class Comparing(Codistilled):
    """Learns from what the others' models say of the node's own batches."""

    def begin(self, context: RecipeContext) -> None:
        """A second model, into which theirs are loaded in turn."""
        super().begin(context)
        self._layout = context.inputs.layout.part("model")
        others = context.inputs.others.get(MEMBER, {}) if self._weight else {}
        self._others = [others[node] for node in sorted(others)]
        if self._others:
            self._peer = copy.deepcopy(unwrapped(context.model)).requires_grad_(False).eval()

    def loss(self, model: nn.Module, batch: object, base: LossOutput) -> Tensor:
        """The node's own loss, and how far its predictions are from the others'."""
        loss = self.smoothed(base)
        if not self._others:
            return loss
        logits = self.logits_in(base)
        target = torch.zeros(logits.shape, device=logits.device)
        with torch.no_grad():
            for vector in self._others:
                load_flat(self._peer, self._layout, vector)
                output = loss_of(self._context.task, self._peer, batch)
                target += self.as_target(self.logits_in(output)) / len(self._others)
        return loss + self._weight * self.divergence(logits, target).mean()

    def finish(self) -> Mapping[str, Tensor | bytes]:
        """The trained model, which the node keeps, too."""
        own = flat_of(self._context.model, self._layout)
        self._context.inputs.state[MEMBER] = own
        return {MEMBER: own}
