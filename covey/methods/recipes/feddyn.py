"""FedDyn: each node's loss gets a linear and a quadratic term, so that all of them share a stationary point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from covey.layout import Layout, TensorSpec
from covey.learning.models.entries import unwrapped
from covey.learning.models.flat import cut, flat_of, load_flat
from covey.learning.recipe import PlainRecipe, Recipe, RecipeContext
from covey.methods.averaging import MODEL, Averaging
from covey.methods.contract import Combination, FinishContext, Made, Part, PluginOptions, RunForm
from covey.parts import COLLECT

SUM, OWN, MARK = "gradients", "own-gradient", "mark"
COUNTS = "feddyn.counts"
"""In a part's layout, behind the vector: (epoch, nodes) of the run's, (epoch, updates) of a node's."""


class FedDynOptions(PluginOptions):
    """Options of `feddyn`."""

    alpha: float = Field(default=0.1, gt=0)
    """How strongly a node is held near the point where it begins; the authors try 0.1, 0.01 and 0.001."""


class FedDyn(Averaging):
    """Each node minimises L_k(w) - <g_k, w> + alpha / 2 ||w - w_t||^2, g_k its loss's gradient where it ended last.

    Acar, Zhao, Matas Navarro, Mattina, Whatmough and Saligrama, "Federated Learning Based on Dynamic Regularization"
    (ICLR 2021, arXiv 2111.04263), algorithm 1. With P the nodes of a round, m all nodes of the run, w_k what node k
    trained, and h the mean of all g_k:

        g_k <- g_k - alpha (w_k - w_t),    h <- h - alpha / m sum_P (w_k - w_t),    w_{t+1} = mean_P w_k - h / alpha

    The run's model is mean_P w_k, as the authors evaluate it; w_{t+1} is where nodes begin: they make it of the model
    and of part `gradients`, h m in float32 with two counts, which comes down. Up goes the model only: it tells how g_k
    changed. g_k stays on the node (part `own-gradient`) and changes only when its update was accepted, so that h stays
    the mean of all g_k.

    A node that lost its g_k, or has an older one, cannot be subtracted from h. So each node's update comes with a mark:
    how many of its updates count. The node gets back what the coordinator has of it, and where that is not what it has
    itself, it says so with the next update. Then all begin anew: h is zero, a new epoch begins, and whoever has a g_k
    of an older one takes zero instead. Metric `resets` counts that.

    Deviations: local minimisation takes the run's local steps; the mean of the models has the run's weights.
    """

    Options = FedDynOptions
    options: FedDynOptions
    modes = frozenset({"rounds"})

    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        """Whatever makes the model something else than the mean of what nodes trained, or hides what that was."""
        spec = run.spec
        if spec.exchange.payload == "gradient":
            yield "exchange.payload", '"feddyn" changes local steps, and "gradient" takes none; choose "delta"'
        if spec.exchange.codec != "none":
            text = (
                f'"feddyn" reads from an update how a node\'s own gradient changed, and {spec.exchange.codec!r} loses '
            )
            yield "exchange.codec", text + 'some of it, which would stay in the mean of all; choose "none"'
        if spec.exchange.worker_momentum:
            yield "exchange.worker_momentum", '"feddyn" sends what local training came to; leave it out'
        if spec.facts.synchronous and (spec.aggregation.name != "mean" or spec.aggregation.pre):
            text = (
                'the model of "feddyn" is the mean of what nodes trained: what a rule leaves out of it would stay in '
            )
            yield (
                "aggregation.name",
                text + 'the mean of their gradients; choose "mean" without pre, or the method "none"',
            )
        if spec.server_optimizer.name != "sgd" or getattr(run.optimizer.options, "learning_rate", 1.0) != 1.0:
            text = 'the model of "feddyn" is the mean of what nodes trained; choose "sgd" with the learning rate 1'
            yield "server_optimizer.name", text

    def notes(self, run: Combination) -> Iterator[str]:
        """What comes down beside the model, and what a node keeps."""
        size = _with_counts(run.layout).nbytes
        yield f'"feddyn" brings each node {size:,} bytes beside the model in a round, and a node keeps as many'

    def parts(self, form: RunForm) -> Sequence[Part]:
        """Those of plain averaging; the sum of all nodes' gradients, a node's own, and its mark."""
        layout, mark = _with_counts(form.layout), Layout((TensorSpec(COUNTS, "float32", (2,)),))
        return (
            *super().parts(form),
            Part(name=SUM, layout=layout, down=1, keep=frozenset({"version"})),
            Part(name=OWN, layout=layout, keep=frozenset({"node-accepted"})),
            Part(name=MARK, layout=mark, up=1, down=1, audience="own", combine=COLLECT, keep=frozenset({"version"})),
        )

    def objection(self, parts: Mapping[str, Any], form: RunForm) -> str:
        """A mark that is not two whole numbers from 0."""
        mark = parts[MARK]
        is_wrong = bool((mark < 0).any() or (mark != mark.round()).any())
        return f"the mark is {mark.tolist()}, not two whole numbers from 0" if is_wrong else ""

    def recipe(self, phase: int) -> Recipe | None:
        """The terms' gradients."""
        return Dynamic(self.options.alpha)

    def finish(self, parts: Mapping[str, Tensor], state: Mapping[str, Tensor], context: FinishContext) -> Made:
        """The sum of all nodes' gradients: from zero where a node says that it lost its own."""
        layout = _with_counts(context.form.layout)
        before = state.get(SUM, torch.zeros(layout.numel))
        total, epoch, _ = _cut(before)
        mean = _mean(before)
        total, is_lost = total.clone(), False
        for update in context.updates.values():
            moved = update.parts[MODEL].dense()
            total.sub_(moved, alpha=self.options.alpha).sub_(mean)
            is_lost = is_lost or not update.parts[MARK][1]
        if is_lost:
            total.zero_()
            epoch += 1
        counts = torch.tensor([float(epoch), float(len(context.roster))])
        metrics = {"resets": (float(epoch), 1.0)} if epoch else {}
        return Made({SUM: torch.cat([total, counts])}, metrics)


def _with_counts(layout: Layout) -> Layout:
    """A vector as long as the exchanged parameters, and two counts: float32 `[d + 2]`."""
    tensors = [replace(tensor, dtype="float32") for tensor in layout.part("model").tensors]
    return Layout((*tensors, TensorSpec(COUNTS, "float32", (2,))))


def _cut(flat: Tensor) -> tuple[Tensor, int, int]:
    """The vector, float32 `[d]`, and the two counts."""
    return flat[:-2], int(flat[-2]), int(flat[-1])


def _mean(flat: Tensor) -> Tensor:
    """The mean of all nodes' gradients, h: float32 `[d]`; zeros before the first round."""
    total, _, nodes = _cut(flat)
    return total / max(1, nodes)


class Dynamic(PlainRecipe):
    """Begins at w_t, and adds alpha (w - w_t) - g_k to each step's gradients; `alpha` > 0."""

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha

    def begin(self, context: RecipeContext) -> None:
        """Move the model to w_t; take g_k, or zeros where it is none of this epoch, or not the one that counts."""
        self._context, inputs = context, context.inputs
        self._layout = inputs.layout.part("model")
        none = torch.zeros(self._layout.numel + 2)
        run, own = inputs.parts.get(SUM, none), inputs.state.get(OWN, none)
        self._mean, self._epoch = _mean(run), _cut(run)[1]
        marks = list(inputs.others.get(MARK, {}).values())
        known = _updates(marks[0] if marks else none, self._epoch)
        mine = _updates(own, self._epoch)
        self._own = _cut(own)[0] if mine and mine == known else torch.zeros(self._layout.numel)
        self._updates = mine + 1 if mine == known else 0
        self._base = flat_of(context.model, self._layout)
        start = self._base - self._mean / self._alpha
        load_flat(context.model, self._layout, start)
        parameters = dict(unwrapped(context.model).named_parameters())
        anchors, pulls = cut(start, self._layout), cut(self._own, self._layout)
        self._terms = [
            (parameter, anchors[name].to(parameter.device, parameter.dtype), pulls[name].to(parameter))
            for name, parameter in parameters.items()
            if name in anchors and parameter.requires_grad
        ]

    @torch.no_grad()
    def before_step(self, model: nn.Module) -> None:
        """Add the terms' gradients; a parameter on which the loss does not depend has none."""
        for parameter, anchor, own in self._terms:
            if parameter.grad is not None:
                parameter.grad.add_(parameter - anchor, alpha=self._alpha).sub_(own)

    def finish(self) -> Mapping[str, Tensor]:
        """The node's mark, float32 `[2]`; its new gradient is its state."""
        moved = flat_of(self._context.model, self._layout) - self._base
        mark = torch.tensor([float(self._epoch), float(self._updates)])
        self._context.inputs.state[OWN] = torch.cat([self._own - self._alpha * moved - self._mean, mark])
        return {MARK: mark}


def _updates(flat: Tensor, epoch: int) -> int:
    """How many of a node's updates count in this epoch, by what ends with its two counts."""
    return int(flat[-1]) if int(flat[-2]) == epoch else 0
