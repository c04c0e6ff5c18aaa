"""FedDistill: nodes exchange the mean logits of each label, with models or without."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from covey.errors import TaskError
from covey.layout import Layout, TensorSpec
from covey.learning.models.entries import entries_of
from covey.learning.models.flat import flat_of
from covey.learning.models.state import tensors_of
from covey.learning.recipe import PlainRecipe, Recipe, RecipeContext
from covey.learning.task import LossOutput
from covey.methods.averaging import Averaging
from covey.methods.contract import Combination, FinishContext, LabelCounts, Made, Method, Part, PluginOptions, RunForm
from covey.methods.predictor import predictor_of

LOGITS, TRACKER, MEMBER = "logits", "logit-tracker", "member"


class FedDistillOptions(PluginOptions):
    """Options of `feddistill` and `feddistill-plus`."""

    alpha: float = Field(default=1.0, ge=0)
    """Weight of the distance of an example's prediction from the mean logits of its label."""


class FedDistillPlus(Averaging):
    """Plain averaging, and each label's mean logits as a further target of local training.

    Jeong, Oh, Kim, Park, Bennis and Kim, "Communication-Efficient On-Device Machine Learning: Federated Distillation
    and Augmentation under Non-IID Private Data" (arXiv 1811.11479), in the form of the baseline FedDistill+ in the code
    of Zhu, Hong and Zhou (ICML 2021, arXiv 2105.10056). Part `logits` (float32 `[classes, classes]`, a row a label)
    goes up from each node, and its mean comes down with the next round; nodes then minimise

        loss + alpha KL(softmax(logits of the example's label) || p(x)).

    As in that code: a node adds up the logits of all its training so far (`logit-tracker`, kept on the node), divides
    by the label's examples and one more, and sends zeros for labels that it has not seen; the mean is over all nodes of
    the round (with `weights.by = "equal"`; else with the shares of their updates). Rows of zeros tell which labels a
    node lacks: its operator has to allow "exact" counts of labels.
    """

    Options = FedDistillOptions
    options: FedDistillOptions
    modes: ClassVar[frozenset[str]] = frozenset({"rounds"})

    @property
    def label_counts(self) -> LabelCounts:
        """Which labels there are can be seen."""
        return "exact"

    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        """One gradient, of which there is no training to be guided."""
        yield from _refused_payload(run, "feddistill-plus")

    def parts(self, form: RunForm) -> Sequence[Part]:
        """Those of plain averaging, and the logits."""
        return (*super().parts(form), *_logit_parts(form, "feddistill-plus"))

    def recipe(self, phase: int) -> Recipe | None:
        """The target, and the node's own logits."""
        return Distilled(self.options.alpha)

    def finish(self, parts: Mapping[str, Tensor], state: Mapping[str, Tensor], context: FinishContext) -> Made:
        """The mean logits."""
        return _mean_logits(parts, state, context)


class FedDistill(Method):
    """Each node trains a model of its own, and each label's mean logits are a further target; no model travels.

    As `feddistill-plus` (`FedDistillPlus`), which see, but each node goes on from its own model (`member`, kept on the
    node as it is after training, with BatchNorm statistics). There is no global model; nodes evaluate their own.

    Jeong, Oh, Kim, Park, Bennis and Kim, "Communication-Efficient On-Device Machine Learning: Federated Distillation
    and Augmentation under Non-IID Private Data" (arXiv 1811.11479), in the form of the baseline FedDistill in the code
    of Zhu, Hong and Zhou.
    """

    Options = FedDistillOptions
    options: FedDistillOptions
    global_model: ClassVar[bool] = False
    member: ClassVar[str] = MEMBER

    @property
    def label_counts(self) -> LabelCounts:
        """Which labels there are can be seen."""
        return "exact"

    def local(self, model: nn.Module) -> frozenset[str]:
        """All that is not a parameter."""
        return frozenset(tensors_of(model)) - entries_of(model).parameters

    def parts(self, form: RunForm) -> Sequence[Part]:
        """The logits, and the node's own model, which stays there."""
        layout = Layout(tuple(replace(t, dtype="float32") for t in form.layout.part("model").tensors))
        member = Part(name=MEMBER, layout=layout, keep=frozenset({"node-always"}))
        return (member, *_logit_parts(form, "feddistill"))

    def recipe(self, phase: int) -> Recipe | None:
        """The target, the node's own logits, and its model."""
        return Distilled(self.options.alpha, keeps_model=True)

    def finish(self, parts: Mapping[str, Tensor], state: Mapping[str, Tensor], context: FinishContext) -> Made:
        """The mean logits."""
        return _mean_logits(parts, state, context)


def _refused_payload(run: Combination, method: str) -> Iterator[tuple[str, str]]:
    if run.spec.exchange.payload == "gradient":
        yield "exchange.payload", f'"{method}" guides local training, and "gradient" has none; choose "delta"'


def _logit_parts(form: RunForm, method: str) -> tuple[Part, Part]:
    classes = predictor_of(form, method).classes
    logits = Layout.of([TensorSpec(LOGITS, "float32", (classes, classes))])
    tracker = Layout.of([TensorSpec(TRACKER, "float32", (classes, classes + 1))])
    return (
        Part(name=LOGITS, layout=logits, up=1, down=1, keep=frozenset({"version"})),
        Part(name=TRACKER, layout=tracker, keep=frozenset({"node-always"})),
    )


def _mean_logits(parts: Mapping[str, Tensor], state: Mapping[str, Tensor], context: FinishContext) -> Made:
    if LOGITS in parts:
        return Made({LOGITS: parts[LOGITS]})
    classes = predictor_of(context.form, context.form.spec.method.name).classes
    return Made({LOGITS: state.get(LOGITS, torch.zeros(classes * classes))})


class Distilled(PlainRecipe):
    """Adds the target's term to each step's loss, and follows the node's own logits.

    Args:
        alpha: The term's weight.
        keeps_model: Whether the trained model is part of the node's state.
    """

    def __init__(self, alpha: float, *, keeps_model: bool = False) -> None:
        self._alpha, self._keeps_model = alpha, keeps_model

    def begin(self, context: RecipeContext) -> None:
        """Take what came down, and what the node has added up so far."""
        self._context = context
        flat = context.inputs.parts.get(LOGITS)
        self._target = None if flat is None else flat.view(_root(flat), -1).clone()
        self._sums: Tensor | None = None
        """Of the logits of each label, and in the last column how many there were: `[classes, classes + 1]`."""

    def loss(self, model: nn.Module, batch: Any, base: LossOutput) -> Tensor:
        """The task's own, and the distance from the target."""
        logits, labels = base.logits, base.targets
        if logits is None or labels is None or labels.ndim != 1:
            raise TaskError("FedDistill needs logits and one label an example in what `loss` returns (LossOutput)")
        self._add(logits.detach().to("cpu", torch.float32), labels.cpu())
        if self._target is None or not self._alpha:
            return base.loss
        target = functional.softmax(self._target.to(logits.device)[labels], 1)
        divergence = functional.kl_div(functional.log_softmax(logits, 1), target, reduction="batchmean")
        return base.loss + self._alpha * divergence

    def _add(self, logits: Tensor, labels: Tensor) -> None:
        if self._sums is None:
            classes = logits.shape[1]
            before = self._context.inputs.state.get(TRACKER)
            self._sums = torch.zeros(classes, classes + 1) if before is None else before.view(classes, -1).clone()
        self._sums.index_add_(0, labels, torch.cat([logits, torch.ones(len(logits), 1)], 1))

    def finish(self) -> Mapping[str, Tensor | bytes]:
        """The node's mean logits, float32 `[classes x classes]`."""
        if self._sums is None:
            raise TaskError("there was no local step that shows logits; set training.local_steps to 1 or more")
        inputs = self._context.inputs
        inputs.state[TRACKER] = self._sums.reshape(-1)
        if self._keeps_model:
            inputs.state[MEMBER] = flat_of(self._context.model, inputs.layout.part("model"))
        return {LOGITS: (self._sums[:, :-1] / (self._sums[:, -1:] + 1)).reshape(-1)}


def _root(flat: Tensor) -> int:
    return math.isqrt(len(flat))
