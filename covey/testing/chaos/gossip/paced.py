"""Digits whose trainings take a given time, whatever the machine: what is measured is not the processor."""

from __future__ import annotations

import time
from typing import Any

from pydantic import Field
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from covey.learning.task import FitResult, FitSettings, NodeData
from covey.learning.tasks.digits import Digits

PACED = "covey.testing.chaos.gossip.paced:PacedDigits"
"""Its path, as a specification names it."""
SLICE_S = 0.05


class PacedDigits(Digits):
    """`digits`; before a training it waits, without using the processor."""

    class Options(Digits.Options):
        """[task.options]: those of `digits`, and `seconds`."""

        seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
        """How long each training waits; where a node's [data.options] say `slower`, so many times as long."""

    own_fit = True
    options: Options
    _wait_s = 0.0

    def train_data(self, data: NodeData) -> TensorDataset:
        """As `digits`."""
        self._wait_s = self.options.seconds * float(str(data.options.get("slower", 1.0)))
        return super().train_data(data)

    def fit(self, model: nn.Module, data: Dataset[Any], settings: FitSettings) -> FitResult | None:
        """Wait; the training itself is the built-in one."""
        end = time.monotonic() + self._wait_s
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(SLICE_S, left))
            settings.each_step()
        return None
