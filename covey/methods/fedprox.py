"""FedProx: local training that is held near the model that came down."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor, nn

from covey.learning.recipe import PlainRecipe, Recipe, RecipeContext
from covey.methods.averaging import Averaging
from covey.methods.contract import Combination, PluginOptions


class FedProxOptions(PluginOptions):
    """Options of `fedprox`."""

    mu: float = Field(default=0.01, ge=0)
    """How strongly: mu / 2 times the squared distance is added to the loss; 0 is plain averaging."""


class FedProx(Averaging):
    """Each node minimises its own loss plus mu / 2 ||w - w_t||^2, with w_t the round's base model.

    Li, Sahu, Zaheer, Sanjabi, Talwalkar and Smith, "Federated Optimization in Heterogeneous Networks" (MLSys 2020,
    arXiv 1812.06127), equation 2. What is exchanged and how it is combined is as in plain averaging. The term's
    gradient, mu (w - w_t), is added to each step's before it is clipped; the reported loss is the task's own. Local
    solutions are inexact in the paper's sense by the number of local steps, which the run fixes for all nodes.
    """

    Options = FedProxOptions
    options: FedProxOptions

    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        """A gradient at the base model, where the term has none."""
        if run.spec.exchange.payload == "gradient":
            text = 'at the base model the term of "fedprox" has no gradient; choose "delta" or "parameters"'
            yield "exchange.payload", text

    def recipe(self, phase: int) -> Recipe | None:
        """The term's gradient; nothing where mu is 0."""
        return Proximal(self.options.mu) if self.options.mu else None


class Proximal(PlainRecipe):
    """Adds mu (w - w_t) to each step's gradients; `mu` > 0."""

    def __init__(self, mu: float) -> None:
        self._mu = mu
        self._parameters: list[nn.Parameter] = []
        self._anchors: list[Tensor] = []

    def begin(self, context: RecipeContext) -> None:
        """Keep the base model's trained parameters."""
        self._parameters = [parameter for parameter in context.model.parameters() if parameter.requires_grad]
        self._anchors = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def before_step(self, model: nn.Module) -> None:
        """Add the term's gradient; a parameter on which the loss does not depend is at its anchor, and stays there."""
        for parameter, anchor in zip(self._parameters, self._anchors, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter - anchor, alpha=self._mu)
