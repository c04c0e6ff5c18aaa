"""Models of any size without any learning: for load tests and benchmarks."""

from __future__ import annotations

import time
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from covey.learning.statistics import Stat
from covey.learning.task import FitResult, FitSettings, LossOutput, NodeData, Task
from covey.seeds import derive_seed

EXAMPLES = 4096
PATTERN = 4093
"""Prime, so that no two chunks of a model file are equal."""
SLICE_S = 0.05


class SyntheticModel(nn.Module):
    """Vectors with a repeating pattern of small values.

    Args:
        sizes: Of the vectors.
        dtype: Of all of them.
    """

    def __init__(self, sizes: list[int], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        pattern = torch.linspace(-0.05, 0.05, PATTERN).to(dtype)
        self.values = nn.ParameterList(nn.Parameter(_repeat(pattern, size)) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        """The mean square of all values, whatever `x` is."""
        squares = torch.stack([v.square().mean() for v in self.values])
        return squares.mean()


class Synthetic(Task):
    """Local training adds a tiny number to every value, which follows from seed, round and node."""

    class Options(Task.Options):
        """[task.options] of `synthetic`."""

        parameters: int = Field(default=10_000, ge=1, le=1 << 36)
        tensors: int = Field(default=1, ge=1, le=10_000)
        """More than one: sizes in the proportions of ResNet-18 (exactly its, for 11699132 in 122)."""
        train_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
        dtype: Literal["float32", "bfloat16", "float16"] = "float32"
        still: bool = False
        """Training changes nothing: every version is the first one."""

        @model_validator(mode="after")
        def _large_enough(self) -> Synthetic.Options:
            if self.parameters < self.tensors:
                raise ValueError("parameters is smaller than tensors: no tensor may be empty")
            return self

    own_fit = True
    options: Options

    def model(self) -> nn.Module:
        """`tensors` vectors with `parameters` values in all."""
        sizes = tensor_sizes(self.options.parameters, self.options.tensors)
        return SyntheticModel(sizes, getattr(torch, self.options.dtype))

    def train_data(self, data: NodeData) -> TensorDataset:
        """4096 examples of nothing."""
        return TensorDataset(torch.zeros(EXAMPLES, 1))

    def loss(self, model: nn.Module, batch: Any) -> LossOutput:
        """The mean square of all values."""
        return LossOutput(model(batch[0]), len(batch[0]))

    def fit(self, model: nn.Module, data: Dataset[Any], settings: FitSettings) -> FitResult:
        """One pass over the values, then wait until `train_seconds` are over."""
        end = time.monotonic() + self.options.train_seconds
        draw = derive_seed(settings.seed, "synthetic", settings.round, settings.roster_index)
        change = (draw / 2**62 - 1.0) * 1e-3
        with torch.no_grad():
            for parameter in model.parameters() if not self.options.still else ():
                parameter.add_(change)
        settings.each_step()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(SLICE_S, left))
            settings.each_step()
        return FitResult(len(settings.indices), 1, {"loss": Stat(0.0, len(settings.indices))})


def tensor_sizes(parameters: int, tensors: int) -> list[int]:
    """Sizes of `tensors` vectors that sum to `parameters`, in ResNet-18's proportions and order."""
    if tensors == 1:
        return [parameters]
    template = _resnet18()
    wanted = [template[i % len(template)] for i in range(tensors)]
    whole = sum(wanted)
    sizes = [1 + size * (parameters - tensors) // whole for size in wanted]
    if whole == parameters:
        sizes = wanted
    sizes[sizes.index(max(sizes))] += parameters - sum(sizes)
    return sizes


def _resnet18() -> list[int]:
    """He et al. 2016: each convolution and its batch norm (scale, shift, mean, variance, counter); output."""
    convolutions = [(3, 64, 49), *[(64, 64, 9)] * 4]
    for width in (128, 256, 512):
        half = width // 2
        convolutions += [(half, width, 9), (width, width, 9), (half, width, 1), *[(width, width, 9)] * 2]
    sizes = []
    for inputs, outputs, kernel in convolutions:
        sizes += [inputs * outputs * kernel, outputs, outputs, outputs, outputs, 1]
    return [*sizes, 512 * 1000, 1000]


def _repeat(pattern: Tensor, size: int) -> Tensor:
    whole = torch.empty(size, dtype=pattern.dtype)
    rows = size // len(pattern)
    whole[: rows * len(pattern)].view(rows, len(pattern)).copy_(pattern)
    whole[rows * len(pattern) :] = pattern[: size - rows * len(pattern)]
    return whole
