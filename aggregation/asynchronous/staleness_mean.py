"""FedAsync: every update is mixed into the model at once, the less the staler it is."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from covey.aggregation.asynchronous.contract import (
    Arrival,
    AsyncContext,
    AsyncPolicy,
    AsyncStep,
    Decision,
    PolicyState,
    Verdict,
)
from covey.aggregation.asynchronous.dampening import DampeningOptions, Kind
from covey.aggregation.matrix import Row, UpdateMatrix


class StalenessMean(AsyncPolicy[PolicyState]):
    """x <- (1 - a_t) x + a_t x_new with a_t = alpha s(tau): the mixing of FedAsync.

    Xie, Koyejo & Gupta, "Asynchronous Federated Optimization" (arXiv 1903.03934, Algorithm 1 and section 5.2);
    the functions s are those of its authors' code. The defaults (alpha = 0.6, s polynomial with a = 1/2) are not: their
    code has alpha = 0.9 (0.8 in its script, halved at step 800) and s = 1.

    With payload `parameters` and the server optimizer `sgd` at learning rate 1 this is the formula. With payload
    `delta` it is x + a_t (x_new - x_base): the node's change against the version it had, which leaves alone what
    others did in between. With payload `gradient` it is asynchronous SGD with the step a_t. The paper's
    regularised local objective is the node's business.

    Assumes no Byzantine node: a single one moves the model anywhere. The declared weights have no part in it.
    The part `buffers` is mixed with a_t too.
    """

    class Options(DampeningOptions):
        """Options of `staleness-mean`."""

        alpha: Annotated[float, Field(gt=0, le=1)] = 0.6
        """How far the model goes for an update without staleness."""
        dampening: Kind = "polynomial"
        """s: how this falls with staleness; `none` is the paper's constant function."""

    options: Options
    mixes_parameters = True

    def decide(self, arrival: Arrival, state: PolicyState, context: AsyncContext) -> Decision[PolicyState]:
        """Always accepted, with share a_t.

        Raises:
            RunFailed: The node is not in the roster.
        """
        context.index(arrival.node)
        tau = context.staleness(arrival)
        factor = self.options.factor(tau)
        share = self.options.alpha * factor
        numbers = {"staleness": float(tau), "dampening": factor}
        row = UpdateMatrix([Row(arrival.node, 1.0, arrival.reader)])
        step = AsyncStep(
            row.weighted_sum(torch.tensor([share], dtype=torch.float64)), {arrival.number: 1.0}, mixing=share
        )
        return Decision((Verdict(arrival.node, "accepted", "", share, numbers, arrival.number),), state, step)
