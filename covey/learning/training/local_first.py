"""First the tensors that stay on the node, then those that are shared: FedRep's local training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from covey.errors import TaskError
from covey.learning.models.entries import unwrapped
from covey.learning.recipe import Recipe, RecipeContext
from covey.learning.task import LossOutput


class LocalFirst(Recipe):
    """Trains one part of the model at a time, around whatever else a method changes.

    Collins, Hassani, Mokhtari and Shakkottai, "Exploiting Shared Representations for Personalized Federated Learning"
    (ICML 2021, arXiv 2102.07078), algorithm 1: in each round a node takes some steps on its head with the body as it
    came, and then steps on the body with the head as it is now. A parameter whose turn it is not has no gradient in
    that step: optimizers leave it, and what they remember of it, alone.

    Args:
        recipe: The method's.
        local: Names of the tensors that stay on the node.
        steps: How many steps are theirs.
    """

    def __init__(self, recipe: Recipe, local: frozenset[str], steps: int) -> None:
        self._recipe, self._local, self._steps, self._done = recipe, local, steps, 0

    def begin(self, context: RecipeContext) -> None:
        """Tell the two apart."""
        self._recipe.begin(context)
        self.rate = self._recipe.rate
        parameters = dict(unwrapped(context.model).named_parameters())
        self._own = [parameter for name, parameter in parameters.items() if name in self._local]
        self._shared = [parameter for name, parameter in parameters.items() if name not in self._local]

    def loss(self, model: nn.Module, batch: Any, base: LossOutput) -> Tensor:
        """The method's."""
        return self._recipe.loss(model, batch, base)

    def before_step(self, model: nn.Module) -> None:
        """Take the gradients away of what is not trained now."""
        self._recipe.before_step(model)
        for parameter in self._shared if self._done < self._steps else self._own:
            parameter.grad = None

    def after_step(self, model: nn.Module) -> None:
        """Count the step."""
        self._recipe.after_step(model)
        self._done += 1

    def finish(self) -> Mapping[str, Tensor | bytes]:
        """The method's parts.

        Raises:
            TaskError: There was no step for what is shared.
        """
        if self._done <= self._steps:
            raise TaskError(
                f"training.local_first is {self._steps}, and a round has {self._done} steps on this node, so that "
                "nothing of what is shared was trained; choose fewer, or more local_steps"
            )
        return self._recipe.finish()
