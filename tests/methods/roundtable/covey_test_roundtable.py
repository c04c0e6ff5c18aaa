"""A method without a global model: each node keeps its own, and is pulled towards the mean of the others'."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor, nn

from covey.layout import Layout
from covey.learning.recipe import PlainRecipe, RecipeContext
from covey.methods.contract import Method, Part, PluginOptions, RunForm

MEMBER = "member"


class RoundtableOptions(PluginOptions):
    """Options of `roundtable`."""

    pull: float = Field(default=0.3, ge=0, le=1)
    """How far each node moves towards the mean of the others before it trains."""


class Roundtable(Method):
    """Each node sends its model, and gets those of the others with the next round; nothing is combined."""

    Options = RoundtableOptions
    options: RoundtableOptions
    global_model = False
    member = MEMBER

    def parts(self, form: RunForm) -> Sequence[Part]:
        """The node's own model."""
        layout = Layout(tuple(replace(tensor, dtype="float32") for tensor in form.layout.part("model").tensors))
        return (
            Part(
                name=MEMBER,
                layout=layout,
                up=1,
                down=1,
                audience="others",
                combine="collect",
                keep=frozenset({"version", "node-always"}),
            ),
        )

    def recipe(self, phase: int) -> "Pulled":
        """The pull."""
        return Pulled(self.options.pull)


class Pulled(PlainRecipe):
    """Moves the model once, and hands it over when it is trained."""

    def __init__(self, pull: float) -> None:
        self._pull = pull

    @torch.no_grad()
    def begin(self, context: RecipeContext) -> None:
        """Move towards the mean of the others, of which one is open at a time."""
        self._inputs, self._layout, self._model = context.inputs, context.inputs.layout.part("model"), context.model
        others, own = context.inputs.others.get(MEMBER, {}), self._flat()
        if others:
            mean = torch.zeros(self._layout.numel)
            for node in sorted(others):
                mean += others[node] / len(others)
            own += self._pull * (mean - own)
            tensors, pieces = dict(context.model.named_parameters()), own.split([t.numel for t in self._layout.tensors])
            for spec, piece in zip(self._layout.tensors, pieces, strict=True):
                tensors[spec.name].copy_(piece.view(spec.shape))

    def finish(self) -> Mapping[str, Tensor | bytes]:
        """The model, which the node keeps, too."""
        self._inputs.state[MEMBER] = self._flat()
        return {MEMBER: self._inputs.state[MEMBER]}

    def _flat(self) -> Tensor:
        tensors: Mapping[str, nn.Parameter] = dict(self._model.named_parameters())
        return torch.cat([tensors[spec.name].detach().reshape(-1).float().cpu() for spec in self._layout.tensors])
