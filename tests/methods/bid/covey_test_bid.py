"""A method with two phases: nodes bid with their training loss, and only the best bidder sends its model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from covey.learning.recipe import PlainRecipe
from covey.learning.task import LossOutput
from covey.methods.averaging import MODEL, Averaging
from covey.methods.contract import Answer, Close, Open, Part, PlanContext, PluginOptions, RunForm


class BidOptions(PluginOptions):
    """Options of `bid`."""

    tolerance: float = Field(default=1.0, ge=0)
    """By how much a bid may be below the loss that the model has on central data."""


class Bid(Averaging):
    """Phase 1: each node sends its mean training loss. Phase 2: the best bidder sends its model, which is audited on
    central data; a bid that was too good is rejected, and the next bidder is asked."""

    Options = BidOptions
    options: BidOptions
    modes = frozenset({"rounds"})
    phases = 2

    def parts(self, form: RunForm) -> Sequence[Part]:
        """`bid`, as text; and the parts of plain averaging, in phase 2."""
        models = [replace(part, up=2) for part in super().parts(form)]
        return [Part(name="bid", max_bytes=64, up=1, combine="collect"), *models]

    def recipe(self, phase: int) -> "Measured":
        """Measures the loss."""
        return Measured()

    def plan(
        self, phase: int, answers: Sequence[Answer], state: Mapping[str, Tensor], context: PlanContext
    ) -> Open | Close:
        """Close with the model that was asked for, if its bid was honest; else ask the next bidder."""
        received = [answer for answer in answers if answer.verdict == "received"]
        bids = {answer.node: _number(answer.parts["bid"]) for answer in received if answer.phase == 1}
        rejected = {node: "its bid is no number" for node, bid in bids.items() if bid is None}
        for answer in received:
            if answer.phase == 2 and (bid := bids[answer.node]) is not None:
                measured = context.audit(answer.parts[MODEL])["loss"]
                if bid >= measured - self.options.tolerance:
                    return Close((answer.node,), rejected)
                rejected[answer.node] = f"it bid {bid:.3f}, and the audit measures {measured:.3f}"
        asked = {answer.node for answer in answers if answer.phase == 2}
        left = [(bid, node) for node, bid in bids.items() if bid is not None and node not in asked]
        return Open(2, {min(left)[1]: ""}, rejected) if left else Close((), rejected)


class Measured(PlainRecipe):
    """The mean loss of the training batches."""

    def begin(self, context: Any) -> None:
        """Nothing was measured yet."""
        self._losses: list[float] = []

    def loss(self, model: nn.Module, batch: Any, base: LossOutput) -> Tensor:
        """The task's own, noted."""
        self._losses.append(base.loss.item())
        return base.loss

    def finish(self) -> Mapping[str, Tensor | bytes]:
        """The bid."""
        return {"bid": repr(sum(self._losses) / len(self._losses)).encode()}


def _number(text: bytes) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
