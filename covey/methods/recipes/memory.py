"""Memory-augmented optimizers: local steps that remember the largest gradients of a node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from covey.layout import Layout, TensorSpec
from covey.learning.models.entries import unwrapped
from covey.learning.models.flat import cut
from covey.learning.recipe import PlainRecipe, Recipe, RecipeContext
from covey.methods.averaging import Averaging
from covey.methods.contract import Combination, Part, PluginOptions, RunForm
from covey.parts import COLLECT

BUFFER = "critical-gradients"


class MemoryOptions(PluginOptions):
    """Options of `memory`."""

    capacity: int = Field(default=5, ge=0, le=1000)
    """How many gradients a node remembers; 0: none."""
    kappa: float = Field(default=1.0, ge=0)
    """What the remembered gradients are multiplied with; 0: nothing is remembered."""
    aggregate: Literal["sum", "mean"] = "sum"
    """How they join the step's gradient g: g + kappa mean(them), or (g + kappa sum(them)) / (their number + 1)."""
    decay: float = Field(default=0.7, gt=0, le=1)
    """What every priority is multiplied with after each step."""


class CriticalGradients(Averaging):
    """Each local step goes along its gradient and the largest ones that the node remembers; models are averaged.

    McRae, Parthasarathi, Assran and Chandar, "Memory Augmented Optimizers for Deep Learning" (ICLR 2022, arXiv
    2106.10708), algorithm 1. A node keeps C gradients, each with its norm as its priority. Each step's gradient g is
    replaced by a sum of it and those (option `aggregate`), and `training.optimizer` goes on with that: `sgd`,
    `momentum`, `adam` and `adamw` become SGD_C, SGDM_C, Adam_C and AdamW_C. Then g takes the place of the remembered
    gradient of least priority, if its norm is larger, and all priorities decay.

    The buffer outlives the round: part `critical-gradients` stays on the node, (d + 1) C float32 for a model of d
    parameters, and counts once the node's update was accepted. It never travels. With `capacity` or `kappa` 0 there is
    none, and every step is bit for bit that of the optimizer alone.

    Deviations: one buffer of whole gradients with the norm over all tensors (the authors' code has one for each
    tensor); what is replaced is the true minimum (what their heap shows first often is not); weight decay and clipping
    come after, on the sum, so that no decay is remembered. Tensors that stay local take the optimizer's own steps.
    """

    Options = MemoryOptions
    options: MemoryOptions
    modes: ClassVar[frozenset[str]] = frozenset({"rounds"})

    @property
    def remembers(self) -> bool:
        """Whether there is a buffer."""
        return bool(self.options.capacity and self.options.kappa)

    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        """A gradient at the base model, which is no local step; steps that train some of the tensors only."""
        spec = run.spec
        if spec.exchange.payload == "gradient":
            yield "exchange.payload", '"memory" changes local steps, and "gradient" takes none; choose "delta"'
        if spec.training.local_first:
            text = '"memory" remembers gradients of what is shared, and in the first steps there are none; leave it out'
            yield "training.local_first", text

    def notes(self, run: Combination) -> Iterator[str]:
        """What a node needs for the buffer."""
        if self.remembers:
            size = buffer_layout(self.options.capacity, run.layout).nbytes
            text = f"{self.options.capacity} gradients are {size:,} bytes of a node's memory while it trains"
            yield f'"memory" remembers on each node: {text}, and up to twice that of its disk'

    def parts(self, form: RunForm) -> Sequence[Part]:
        """Those of plain averaging, and the buffer, which stays on its node."""
        parts = list(super().parts(form))
        if self.remembers:
            layout = buffer_layout(self.options.capacity, form.layout)
            kept = Part(name=BUFFER, layout=layout, combine=COLLECT, keep=frozenset({"node-accepted"}))
            parts.append(kept)
        return parts

    def recipe(self, phase: int) -> Recipe | None:
        """Steps that remember; nothing where there is no buffer."""
        return Remembering(self.options) if self.remembers else None


def buffer_layout(capacity: int, layout: Layout) -> Layout:
    """Of a node's buffer: priorities float32 `[C]`, gradients float32 `[C, d]`.

    Args:
        capacity: C, at least 1.
        layout: Of the model as it is exchanged, d parameters.
    """
    d = layout.part("model").numel
    return Layout((TensorSpec("priorities", "float32", (capacity,)), TensorSpec("gradients", "float32", (capacity, d))))


class Remembering(PlainRecipe):
    """Joins each step's gradient with the remembered ones; `options` with a capacity and a kappa above 0."""

    def __init__(self, options: MemoryOptions) -> None:
        self._options = options

    def begin(self, context: RecipeContext) -> None:
        """Take the buffer; an empty place is a gradient of zeros with priority 0."""
        self._context, exchanged = context, context.inputs.layout
        self._layout = exchanged.part("model")
        whole = buffer_layout(self._options.capacity, exchanged)
        kept = context.inputs.state.get(BUFFER, torch.zeros(whole.numel))
        buffer = cut(kept.to(context.device, copy=True), whole)
        self._priorities, self._gradients = buffer["priorities"], buffer["gradients"]
        own = dict(unwrapped(context.model).named_parameters())
        self._parameters = [own.get(tensor.name) for tensor in self._layout.tensors]

    @torch.no_grad()
    def before_step(self, model: nn.Module) -> None:
        """Join, and then remember."""
        gradient = self._gradient()
        joined = self._joined(gradient)
        self._remember(gradient)
        at = 0
        for parameter, tensor in zip(self._parameters, self._layout.tensors, strict=True):
            if parameter is not None and parameter.grad is not None:
                parameter.grad.copy_(joined[at : at + tensor.numel].view(tensor.shape))
            at += tensor.numel

    def finish(self) -> dict[str, Tensor]:
        """Nothing goes up; the buffer is the node's state."""
        flat = torch.cat([self._priorities, self._gradients.flatten()])
        self._context.inputs.state[BUFFER] = flat.to("cpu")
        return {}

    def _gradient(self) -> Tensor:
        """This step's, float32 `[d]`; zeros where the loss does not depend on a parameter."""
        device = self._gradients.device
        pieces = [
            torch.zeros(tensor.numel, device=device)
            if parameter is None or parameter.grad is None
            else parameter.grad.to(torch.float32).flatten()
            for parameter, tensor in zip(self._parameters, self._layout.tensors, strict=True)
        ]
        return torch.cat(pieces)

    def _joined(self, gradient: Tensor) -> Tensor:
        count = torch.count_nonzero(self._priorities)  # on the device, where nobody waits for it
        total = self._gradients.sum(0).mul_(self._options.kappa)
        if self._options.aggregate == "sum":
            return total.div_(count.clamp(min=1)).add_(gradient)
        return total.add_(gradient).div_(count + 1)

    def _remember(self, gradient: Tensor) -> None:
        norm, least = torch.linalg.vector_norm(gradient), torch.argmin(self._priorities)
        is_larger = norm > self._priorities[least]
        self._gradients[least] = torch.where(is_larger, gradient, self._gradients[least])
        self._priorities[least] = torch.where(is_larger, norm, self._priorities[least])
        self._priorities.mul_(self._options.decay)
