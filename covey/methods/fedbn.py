"""FedBN: batch normalization stays on each node."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import field_validator
from torch import nn

from covey.learning.models.state import tensors_of
from covey.methods.averaging import Averaging
from covey.methods.contract import Combination, PluginOptions


class FedBNOptions(PluginOptions):
    """Options of `fedbn`."""

    patterns: tuple[str, ...] = ()
    """Regular expressions, searched in the names of parameters and buffers: what stays local. Default: all tensors of
    the model's BatchNorm modules, their statistics included."""

    @field_validator("patterns")
    @classmethod
    def _valid(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
        return patterns


class FedBN(Averaging):
    """Plain averaging of everything but batch normalization, of which each node keeps its own.

    Li, Jiang, Zhang, Kamp and Dou, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization" (ICLR
    2021, arXiv 2102.07623), algorithm 1: parameters and statistics of BatchNorm layers are excluded from the average.
    They never leave the node, so that the run's model lacks them: it is evaluated on the nodes.
    """

    Options = FedBNOptions
    options: FedBNOptions

    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        """A model in which nothing would stay local."""
        if not run.local:
            what = "has a tensor of such a name" if self.options.patterns else "has a BatchNorm module"
            yield "method.name", f'"fedbn" leaves nothing local: nothing in the task\'s model {what}; choose "none"'

    def local(self, model: nn.Module) -> frozenset[str]:
        """Those that match a pattern, or, without patterns, those of BatchNorm modules."""
        names = list(tensors_of(model))
        if self.options.patterns:
            return frozenset(name for name in names if any(re.search(p, name) for p in self.options.patterns))
        normed = [name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        return frozenset(name for name in names if name.rpartition(".")[0] in normed)
