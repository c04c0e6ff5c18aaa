"""SCAFFOLD: control variates that take the drift out of local training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from covey.errors import TaskError
from covey.layout import Layout
from covey.learning.models.entries import unwrapped
from covey.learning.models.flat import flat_of
from covey.learning.models.state import views
from covey.learning.recipe import PlainRecipe, Recipe, RecipeContext
from covey.methods.averaging import Averaging
from covey.methods.contract import Combination, FinishContext, Made, Part, RunForm
from covey.parts import Keep

CONTROL = "control"


class Scaffold(Averaging):
    """Each local step is corrected by c - c_i, the difference of the run's and the node's own control variate.

    Karimireddy, Kale, Mohri, Reddi, Stich and Suresh, "SCAFFOLD: Stochastic Controlled Averaging for Federated
    Learning" (ICML 2020, arXiv 1910.06378), algorithm 1 with option II: with x the base model, y the trained one, K
    local steps and the learning rate lr,

        y <- y - lr (g_i(y) - c_i + c),    c_i+ = c_i - c + (x - y) / (K lr),    c <- c + |S| / N mean(c_i+ - c_i)

    Part `control` is c on its way down, c_i+ - c_i on its way up, and c_i on the node, float32 and as long as the
    parameters. A node's c_i changes only when its update was accepted, so that the mean of all c_i stays c.

    Deviations: the mean has the shares of the round (with `weights.by = "equal"` it is the paper's), N is the number of
    nodes of the run so far, and the server's step is the run's server optimizer. Weight decay is part of the loss.
    """

    modes: ClassVar[frozenset[str]] = frozenset({"rounds"})

    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        """Whatever makes (x - y) / (K lr) something else than the mean of the gradients, or hides what is sent."""
        spec = run.spec
        if spec.training.optimizer != "sgd":
            text = (
                f'"scaffold" takes steps of plain SGD back to gradients, and {spec.training.optimizer!r} takes others; '
            )
            yield "training.optimizer", text + 'choose "sgd"'
        if spec.training.local_first:
            text = '"scaffold" divides by the number of all local steps, and not all of them move what is shared; '
            yield "training.local_first", text + "leave it out"
        if spec.training.clip_norm is not None:
            text = '"scaffold" keeps the mean of the gradients, not of what clipping leaves of them; leave it out'
            yield "training.clip_norm", text
        if spec.exchange.payload == "gradient":
            yield "exchange.payload", '"scaffold" corrects local steps, and "gradient" takes none; choose "delta"'
        if spec.exchange.worker_momentum:
            yield "exchange.worker_momentum", '"scaffold" sends what local training came to; leave it out'
        if run.codec.signs:
            text = f"the model that comes of signs ({spec.exchange.codec!r}) does not move as the nodes do, and their "
            yield "exchange.codec", text + 'control variates do; choose "none", or a codec with magnitudes'
        for key, rule in (("aggregation.name", run.rule), ("aggregation.fallback", run.fallback)):
            if rule is not None and rule.robust:
                text = "what a robust rule leaves out of the model would stay in the control variates; choose "
                yield key, text + '"mean", or the method "none"'

    def parts(self, form: RunForm) -> Sequence[Part]:
        """Those of plain averaging, and `control`."""
        layout = Layout(tuple(replace(t, dtype="float32") for t in form.layout.part("model").tensors))
        keep: frozenset[Keep] = frozenset({"version", "node-accepted"})
        return (*super().parts(form), Part(name=CONTROL, layout=layout, up=1, down=1, keep=keep))

    def recipe(self, phase: int) -> Recipe | None:
        """The correction of each step, and the node's new control variate."""
        return Corrected()

    def finish(self, parts: Mapping[str, Tensor], state: Mapping[str, Tensor], context: FinishContext) -> Made:
        """The run's new control variate, float32 `[d]`."""
        d = context.form.layout.part("model").numel
        old = state.get(CONTROL, torch.zeros(d))
        if CONTROL not in parts:
            return Made({CONTROL: old})
        share = len(context.accepted) / len(context.roster)
        return Made({CONTROL: old.add(parts[CONTROL], alpha=share)})


class Corrected(PlainRecipe):
    """Adds c - c_i to each step's gradients."""

    def begin(self, context: RecipeContext) -> None:
        """Take c and c_i (zeros where there are none yet), and keep the base model's parameters."""
        self._context, self._layout = context, context.inputs.layout.part("model")
        zeros = torch.zeros(self._layout.numel)
        self._run, self._own = context.inputs.parts.get(CONTROL, zeros), context.inputs.state.get(CONTROL, zeros)
        self._base, self._steps = flat_of(context.model, self._layout), 0
        whole = Layout(tuple(replace(tensor, dtype="float32") for tensor in self._layout.tensors))
        correction = views((self._run - self._own).view(torch.uint8), whole)
        self._corrections = [
            (parameter, correction[name].to(parameter.device, parameter.dtype))
            for name, parameter in unwrapped(context.model).named_parameters()
            if name in correction and parameter.requires_grad
        ]

    @torch.no_grad()
    def before_step(self, model: nn.Module) -> None:
        """Correct the gradients."""
        for parameter, correction in self._corrections:
            if parameter.grad is not None:
                parameter.grad.add_(correction)

    def after_step(self, model: nn.Module) -> None:
        """Count the step."""
        self._steps += 1

    def finish(self) -> Mapping[str, Tensor]:
        """The change of the node's control variate, float32 `[d]`; the new one is its state.

        Raises:
            TaskError: There was no local step, so that there is no mean of gradients.
        """
        if self._steps == 0:
            raise TaskError(
                'there was no local step, and "scaffold" divides by their number; give this node examples of the task, '
                "or set training.local_steps to 1 or more"
            )
        moved = self._base - flat_of(self._context.model, self._layout)
        new = self._own - self._run + moved / (self._steps * self._context.learning_rate)
        self._context.inputs.state[CONTROL] = new
        return {CONTROL: new - self._own}
