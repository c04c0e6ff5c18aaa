"""StableNet: in local training, samples have weights under which the model's features depend less on each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from covey.errors import CoveyError, TaskError
from covey.learning.recipe import PlainRecipe, Recipe, RecipeContext
from covey.learning.representations.decorrelation import SampleWeights
from covey.learning.representations.features import Features, blank_model_of, losses_of, split_of
from covey.learning.task import LossOutput
from covey.methods.averaging import Averaging
from covey.methods.contract import Combination, PluginOptions


class StableNetOptions(PluginOptions):
    """Options of `stablenet`."""

    steps: int = Field(default=20, ge=0, le=10_000)
    """Inner steps that find a batch's weights; 0: all samples have the same, which is plain averaging."""
    learning_rate: float = Field(default=1.0, gt=0)
    """Of the inner steps."""
    penalty: float = Field(default=70.0, gt=0)
    """How much equal weights count beside independent features: lambda; smaller moves weights further."""
    functions: int = Field(default=1, ge=1, le=64)
    """Random Fourier features of each feature."""
    memory: float = Field(default=0.9, ge=0, lt=1)
    """How much of what is remembered of earlier batches is kept in each batch."""


class StableNet(Averaging):
    """Plain averaging of models whose local training weighs samples, so that features do not go by one another.

    Zhang, Cui, Xu, Zhou, He and Shen, "Deep Stable Learning for Out-Of-Distribution Generalization" (CVPR 2021, arXiv
    2104.07876), algorithm 1. In each batch, `steps` steps of gradient descent with momentum 0.9 find weights
    w = softmax(v) of its samples that minimise, over random Fourier features of the model's features (what goes into
    the predictor), the squared weighted covariance of each two features, plus lambda sum w^2; then sum_i w_i loss_i is
    what is minimised. Earlier batches take part by a moving average of features and raw weights (see
    `covey.learning.representations.decorrelation`). What is exchanged is as in plain averaging; the reported loss is
    the task's own.

    Deviations: one level of memory. It begins anew in each round, for the features of the model that comes down are
    other ones, and so that nothing of a node's examples is kept. Fourier features are drawn once a batch, as in the
    paper; the authors' code draws them in each inner step, and scales each example to 0..pi/2 first. The authors say
    that the method is sensitive to its options.
    """

    Options = StableNetOptions
    options: StableNetOptions
    modes: ClassVar[frozenset[str]] = frozenset({"rounds", "async"})

    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        """A task that does not say what its model's features are."""
        try:
            split_of(run.task, blank_model_of(run.task), "stablenet")
        except CoveyError as error:
            yield "method.name", str(error).removeprefix("method.name: ")

    def recipe(self, phase: int) -> Recipe | None:
        """The weights; nothing without inner steps."""
        return Weighted(self.options) if self.options.steps else None


class Weighted(PlainRecipe):
    """The loss with each sample's weight."""

    def __init__(self, options: StableNetOptions) -> None:
        self._options = options

    def begin(self, context: RecipeContext) -> None:
        """Without a memory yet."""
        options = self._options
        self._task, self._generator = context.task, context.generator
        self._features = Features(context.task, context.model, "stablenet")
        self._weights = SampleWeights(
            options.steps, options.learning_rate, options.penalty, options.functions, options.memory
        )

    def loss(self, model: nn.Module, batch: Any, base: LossOutput) -> Tensor:
        """sum_i w_i loss_i.

        Raises:
            TaskError: There is not one loss and one row of features for each sample.
        """
        losses, features = losses_of(self._task, base), self._features.taken().detach().float()
        if len(losses) != len(features):
            raise TaskError(
                f'"stablenet" weighs samples, and a batch has {len(features)} rows of features and {len(losses)} '
                "losses; give `each`, one loss a sample, in the task's LossOutput"
            )
        weights = self._weights.of(features, self._generator)
        return (weights.to(losses.dtype) * losses).sum()
