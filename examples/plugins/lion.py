"""A local optimizer for Covey: Lion."""

import torch
from covey.learning.optimizers import LocalOptimizer
from covey.options import PluginOptions
from pydantic import Field


class Lion(LocalOptimizer):
    """x <- x - lr (sign(b1 m + (1 - b1) g) + wd x);  m <- b2 m + (1 - b2) g.

    Chen et al.: "Symbolic Discovery of Optimization Algorithms" (arXiv 2302.06675), algorithm 2.
    """

    class Options(PluginOptions):
        """[training.options] of `lion`."""

        beta1: float = Field(default=0.9, ge=0, lt=1)
        beta2: float = Field(default=0.99, ge=0, lt=1)

    options: Options

    def slots(self):
        return 1

    def update(self, parameters, gradients, slots, age):
        (momenta,) = slots
        for parameter, gradient, momentum in zip(parameters, gradients, momenta, strict=True):
            step = torch.lerp(momentum, gradient, 1 - self.options.beta1).sign_()
            parameter.sub_(step.add_(parameter, alpha=self.weight_decay), alpha=self.learning_rate)
            momentum.lerp_(gradient, 1 - self.options.beta2)
