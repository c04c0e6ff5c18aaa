"""A task for Covey: which of ten kinds of clothing is on a 28x28 picture of Fashion-MNIST?"""

import gzip
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.utils.data import TensorDataset

from covey.learning.task import NodeData, Task


class Fashion(Task):
    """Model, data, and where to find them; loss, metrics and label partitions are Covey's defaults."""

    class Options(Task.Options):
        """What a run may set under [task.options]."""

        hidden: int = Field(default=100, ge=1, description="units of the hidden layer")

    options: Options

    def model(self) -> nn.Module:
        """Depends on the options only: the coordinator and every node build the same one."""
        hidden = self.options.hidden
        return nn.Sequential(nn.Flatten(), nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, 10))

    def train_data(self, data: NodeData) -> TensorDataset:
        """On each node, from the folder that its operator named in node.toml."""
        return read(Path(data.paths["fashion"]), "train")

    def central_data(self, data: NodeData | None = None) -> TensorDataset | None:
        """On the coordinator, if it was told where the test pictures are: it evaluates each version on them."""
        folder = data.paths.get("fashion") if data is not None else None
        return read(Path(folder), "t10k") if folder else None


def read(folder: Path, part: str) -> TensorDataset:
    """float32 [n, 28, 28] pictures in 0..1 and int64 [n] labels, from the files as they are published."""
    images = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    x = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28).astype(np.float32) / 255
    y = np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)
    return TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
