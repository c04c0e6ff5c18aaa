"""The attack that keeps peers from agreeing."""

from __future__ import annotations

import torch
from pydantic import Field

from covey.aggregation.attacks.contract import Attack, AttackContext
from covey.options import PluginOptions
from covey.vectors import FunctionVector, Vector


class Dissensus(Attack):
    """Pushes a peer away from its neighbours: x_i - epsilon sum_j (x_j - x_i) / f, another vector for each receiver i.

    He, Karimireddy, Jaggi, "Byzantine-Robust Decentralized Learning via ClippedGossip" (arXiv 2202.01545):
    x_i - epsilon sum_(j good) W_ij (x_j - x_i) / sum_(j adversary) W_ij. Here all weights are alike, and the good
    neighbours of i are those that the adversary knows: whose models it was sent itself. Where it does not know the
    receiver's model (and in a run through a coordinator), its own takes that place.
    """

    class Options(PluginOptions):
        """Options of dissensus."""

        epsilon: float = Field(default=1.5, gt=0)

    omniscient = True
    options: Options

    def vector(self, own: Vector, context: AttackContext) -> Vector:
        """float32 `[d]`.

        Raises:
            RunFailed: It knows nobody's model.
        """
        known, receiver = context.require_known(1, "dissensus"), context.receiver or own
        factor = self.options.epsilon / max(context.attackers, 1)

        def read(columns: slice) -> torch.Tensor:
            target = receiver.read(columns)
            pull = sum((row.reader.read(columns) - target for row in known.rows), torch.zeros_like(target))
            return target - factor * pull

        return FunctionVector(own.d, read)
