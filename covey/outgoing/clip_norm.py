"""Clips what leaves a node to a norm of its operator's."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from covey.errors import PolicyError
from covey.options import PluginOptions
from covey.outgoing.filters import Leaving, OutgoingFilter


class ClipNorm(OutgoingFilter):
    """Scales part `model` down to an L2 norm of at most `most`; other parts pass as they are.

    It is no protection that is accounted for: for that see [privacy]. In gossip it bounds the change of a local
    training. That counts up to 4 times in the model that leaves where a node has little mass, and up to 8 times where
    steps are corrected for speed.
    """

    class Options(PluginOptions):
        """[[policy.outgoing]] options of `clip-norm`."""

        most: float = Field(gt=0)
        """The largest L2 norm of a change, or of a gradient."""

    options: Options

    @override
    def tensors(self, tensors: Mapping[str, Tensor], leaving: Leaving) -> Mapping[str, Tensor]:
        if leaving.part != "model":
            return tensors
        if leaving.payload == "parameters":
            raise PolicyError(
                'it bounds changes and gradients, and this run sends whole parameters ([exchange] payload = "delta")'
            )
        norm = math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors.values()))
        if norm <= self.options.most:
            return tensors
        return {name: tensor * (self.options.most / norm) for name, tensor in tensors.items()}
