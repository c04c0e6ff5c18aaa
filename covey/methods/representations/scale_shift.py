"""Scaling and shifting: the model's weights keep their first values, and only factors and offsets are learned."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from covey.errors import SpecError
from covey.learning.models.entries import unwrapped
from covey.learning.models.sharing import matching
from covey.learning.task import Task, task_errors
from covey.methods.averaging import Averaging
from covey.methods.contract import PluginOptions


class ScaleShiftOptions(PluginOptions):
    """Options of `scale-shift`."""

    head: tuple[str, ...] = Field(default=())
    """Patterns (as of `[exchange] share`) of what is trained as it is. Default: the predictor of the task's `split`."""


class ScaleShift(Averaging):
    """Plain averaging of scales, shifts and the head; all other weights keep their first values, and never travel.

    Sun, Liu, Chua and Schiele, "Meta-Transfer Learning for Few-Shot Learning" (CVPR 2019, arXiv 1812.02391), equation
    5 (scaling and shifting). A layer with the weight W and the bias b becomes

        x -> (scale * W) x + (b + shift)

    with a scale (first 1) for each kernel of a convolution, `[out, in, 1, ...]`, and a shift (first 0) for each output
    channel. A layer without a bias gets none, as in the authors' code. W, b, and the parameters of all other layers
    (embeddings, normalization) are frozen: each node makes them from the run's seed, or from what `Task.model` loads,
    and refuses the run where they are not the coordinator's. The statistics of BatchNorm travel as always.

    Deviations: a linear layer has a scale for each output, `[out, 1]`; one for each "kernel" would be as many numbers
    as there are weights. There is no meta-learning around it (episodes, hard tasks): the run's own training learns the
    scales.
    """

    Options = ScaleShiftOptions
    options: ScaleShiftOptions
    modes: ClassVar[frozenset[str]] = frozenset({"rounds", "async"})

    def adapt(self, task: Task, model: nn.Module) -> frozenset[str]:
        """Give the layers scales and shifts, and freeze everything else but the head.

        Raises:
            SpecError: There is no head, or no layer beside it.
        """
        model = unwrapped(model)
        head = self._head(task, model)
        layers = [layer for layer in _scaled_in(model) if id(layer.weight) not in head]
        if not layers:
            raise SpecError(
                'method.name: "scale-shift" finds no convolution and no linear layer beside the head; choose a model '
                'with a body, or the method "none"'
            )
        trained = head | {id(parameter) for layer in layers for parameter in _added(layer)}
        return frozenset(name for name, parameter in model.named_parameters() if id(parameter) not in trained)

    def _head(self, task: Task, model: nn.Module) -> set[int]:
        """The parameters of the head, by identity."""
        if self.options.head:
            names = matching(model, self.options.head)
            chosen = {id(parameter) for name, parameter in model.named_parameters() if name in names}
            if not chosen:
                listed = ", ".join(self.options.head)
                raise SpecError(f"method.options.head: no parameter of the model has a name like {listed}")
            return chosen
        with task_errors("Task.split"):
            split = task.split(model)
        if split is None:
            raise SpecError(
                'method.name: "scale-shift" trains the head as it is, and the task names none; give it a `split`, or '
                "say which parameters are the head's in method.options.head"
            )
        return {id(parameter) for parameter in split.predictor.parameters()}


class Scale(nn.Module):
    """`weight * scale`.

    Args:
        shape: Of the scale, which is 1 at first.
        like: For dtype and device.
    """

    def __init__(self, shape: tuple[int, ...], like: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(like.detach().new_ones(shape))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as the layer uses it."""
        return weight * self.scale


class Shift(nn.Module):
    """`bias + shift`, with a shift that is 0 at first.

    Args:
        like: The bias.
    """

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.shift = nn.Parameter(like.detach().new_zeros(like.shape))

    def forward(self, bias: Tensor) -> Tensor:
        """The bias as the layer uses it."""
        return bias + self.shift


def _scaled_in(model: nn.Module) -> list[nn.Linear | _ConvNd]:
    """The layers that can be scaled; one with a parametrization of its own stays as it is."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | _ConvNd)]
    return [layer for layer in layers if not parametrize.is_parametrized(layer)]


def _added(layer: nn.Linear | _ConvNd) -> list[nn.Parameter]:
    """Put scale and shift into a layer."""
    weight, bias = layer.weight, layer.bias
    shape = (len(weight), 1) if isinstance(layer, nn.Linear) else (*weight.shape[:2], *[1] * (weight.ndim - 2))
    scale = Scale(shape, weight)
    parametrize.register_parametrization(layer, "weight", scale)
    if bias is None:
        return [scale.scale]
    shift = Shift(bias)
    parametrize.register_parametrization(layer, "bias", shift)
    return [scale.scale, shift.shift]
