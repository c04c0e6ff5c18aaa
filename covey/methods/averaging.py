"""Plain averaging, named `none` in a specification: the model goes down, what it became goes up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from covey.methods.contract import Method, Part, RunForm
from covey.parts import MEAN, RULE

MODEL, BUFFERS = "model", "buffers"


class Averaging(Method):
    """The run's rule over what the nodes' models became (FedAvg, if the rule is the mean).

    Part `model` is the vector of the parameters (delta, gradient, or as they are) in the run's codec; part `buffers`,
    where there are any (BatchNorm statistics), the raw values of the model's other tensors.
    """

    modes: ClassVar[frozenset[str]] = frozenset({"rounds", "async", "gossip"})

    def parts(self, form: RunForm) -> Sequence[Part]:
        """Part `model`, and `buffers` where the model has any."""
        codec, buffers = form.spec.exchange.codec, form.layout.part("buffers")
        parts = [Part(name=MODEL, layout=form.layout.part("model"), codec=codec, up=1, combine=RULE, in_model=True)]
        if buffers.tensors:
            parts.append(Part(name=BUFFERS, layout=buffers, up=1, combine=MEAN, in_model=True))
        return parts
