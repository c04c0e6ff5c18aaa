import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from covey.errors import PolicyError
from covey.learning.task import FitResult, FitSettings, LossOutput, NodeData, Task
from covey.outgoing.filters import OutgoingFilter


class Normed(Task):
    """Eight features, two classes; BatchNorm gives it float and integer buffers."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))

    def train_data(self, data: NodeData) -> TensorDataset:
        return made(48, 1)

    def eval_data(self, data: NodeData) -> TensorDataset | None:
        return made(20, 2) if data.options.get("evaluates") else None


def made(examples: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, 8, generator=generator)
    return TensorDataset(x, (x.sum(1) > 0).long())


class Wider(Normed):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(8, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 2))


class Talking(Normed):
    def train_data(self, data: NodeData) -> TensorDataset:
        print('{"id": 1, "result": {}}', flush=True)
        print(data.paths["folder"], file=sys.stderr)
        return super().train_data(data)


class Loud(Normed):
    class Options(Normed.Options):
        printed_bytes: int = 0

    options: Options

    def train_data(self, data: NodeData) -> TensorDataset:
        line = "x" * 65535
        for _ in range(self.options.printed_bytes >> 16):
            print(line)
        return super().train_data(data)


class Failing(Normed):
    def train_data(self, data: NodeData) -> TensorDataset:
        raise ValueError("the scanner is out of film")


class Exiting(Normed):
    def train_data(self, data: NodeData) -> TensorDataset:
        sys.exit(3)


class Exploding(Normed):
    own_fit = True

    def fit(self, model: nn.Module, data: Dataset[Any], settings: FitSettings) -> FitResult:
        with torch.no_grad():
            next(model.parameters())[0, 0] = float("nan")
        return FitResult(len(settings.indices), 1, {})


class Hanging(Normed):
    """Waits for ever in its loss, or in its evaluation, as the node's option `hangs` says."""

    hangs = ""

    def train_data(self, data: NodeData) -> TensorDataset:
        self.hangs = str(data.options["hangs"])
        return super().train_data(data)

    def eval_data(self, data: NodeData) -> TensorDataset | None:
        self.hangs = str(data.options["hangs"])
        return made(20, 2)

    def loss(self, model: nn.Module, batch: Any) -> LossOutput:
        if self.hangs == ("loss" if model.training else "evaluate"):
            time.sleep(10_000)
        return super().loss(model, batch)


class Deaf(Normed):
    """Its own training says that it has begun, and hears of nothing any more."""

    def fit(self, model: nn.Module, data: Dataset[Any], settings: FitSettings) -> FitResult:
        settings.progress(1, 2, 0.0)
        time.sleep(10_000)
        raise AssertionError("unreachable")


class Endless(Normed):
    """Its model is never made."""

    def model(self) -> nn.Module:
        time.sleep(10_000)
        raise AssertionError("unreachable")


class Prying(Normed):
    """Looks at what is none of its business, and tells."""

    def train_data(self, data: NodeData) -> TensorDataset:
        found = {
            "read": self._works(lambda: Path(data.paths["secret"]).read_text()),
            "store": "COVEY_STORE" in os.environ,
            "memory": self._works(lambda: torch.zeros(4 << 30, dtype=torch.uint8)),
        }
        raise ValueError("found out: " + ", ".join(f"{name}: {value}" for name, value in found.items()))

    @staticmethod
    def _works(look: Callable[[], object]) -> bool:
        try:
            look()
        except (OSError, RuntimeError, MemoryError):
            return False
        return True


class Refuses(OutgoingFilter):
    """Lets nothing out."""

    def tensors(self, tensors, leaving):
        raise PolicyError("not today")


class SaysLittle(OutgoingFilter):
    """Lets metrics of an evaluation out, and of those the loss."""

    def tensors(self, tensors, leaving):
        return tensors

    def metrics(self, metrics, leaving):
        return {name: pair for name, pair in metrics.items() if (leaving.part, name) == ("evaluation", "loss")}


class Zeroes(OutgoingFilter):
    """Says nothing, at full length."""

    def tensors(self, tensors, leaving):
        return {name: tensor.zero_() for name, tensor in tensors.items()}
