"""Images in MNIST's file format: MNIST, Fashion-MNIST, or files of one's own."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from covey.errors import TaskError
from covey.learning.task import NodeData, Split, Task, last_layer_split
from covey.learning.tasks.idx import read_idx
from covey.learning.tasks.locations import locate
from covey.learning.tasks.views import noisy, shifted

CHANNELS = (16, 32)
WHITE, MOVED, NOISE = 255, 2, 16
"""The largest value of a pixel; by how many pixels, and with how much noise, a view differs."""


class Pixels(nn.Module):
    """uint8 [n, height, width] to float32 [n, 1, height, width] in 0..1 (raw images are four times less)."""

    def forward(self, x: Tensor) -> Tensor:
        """Scale, and add the channel."""
        return x.unsqueeze(1).float() / 255


class Images(TensorDataset):
    """uint8 [n, height, width] images, int64 [n] labels, and who wrote them if that is known."""

    def __init__(self, images: Tensor, labels: Tensor, writers: Sequence[Hashable] | None) -> None:
        super().__init__(images, labels)
        self.writers = writers


class IdxImages(Task):
    """Classify grey images.

    A node's images lie in the folder that its operator named as path `images`, else in COVEY_DATA/<set>,
    under MNIST's file names, gzipped or not. A file `writers.npz` (`train_writer`, uint16 [n]) beside them
    gives the keys of `partition = "key"`.
    """

    class Options(Task.Options):
        """[task.options] of `idx-images`."""

        set: Literal["mnist", "fashion-mnist", "files"] = "mnist"
        """The folder under COVEY_DATA; `files`: only what each node's operator named."""
        model: Literal["mlp", "cnn"] = "mlp"
        hidden: int = Field(default=128, ge=1, le=100_000)
        """Units of the hidden layer before the output."""
        height: int = Field(default=28, ge=4, le=4096)
        width: int = Field(default=28, ge=4, le=4096)
        classes: int = Field(default=10, ge=2, le=100_000)

    has_keys = True
    options: Options

    def model(self) -> nn.Module:
        """An MLP with one hidden layer, or with two pooled 3x3 convolutions before it; takes uint8 images."""
        o = self.options
        if o.model == "mlp":
            body: list[nn.Module] = [nn.Flatten(), nn.Linear(o.height * o.width, o.hidden)]
        else:
            first, second = CHANNELS
            body = [
                nn.Conv2d(1, first, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(first, second, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(second * (o.height // 4) * (o.width // 4), o.hidden),
            ]
        return nn.Sequential(Pixels(), *body, nn.ReLU(), nn.Linear(o.hidden, o.classes))

    def split(self, model: nn.Module) -> Split | None:
        """The last layer predicts."""
        return last_layer_split(model)

    def view(self, batch: Any, generator: torch.Generator) -> Any:
        """Moved by two pixels at most, with noise."""
        x, y = batch
        return noisy(shifted(x, MOVED, generator), NOISE, generator, WHITE), y

    def table(self, dataset: Dataset[Any]) -> dict[str, Tensor]:
        """`pixel-mean`: the mean of an image's pixels, 0..255."""
        x, _ = dataset.tensors  # type: ignore[attr-defined]
        sums = torch.cat([images.flatten(1).sum(1, dtype=torch.float64) for images in x.split(1024)])
        return {"pixel-mean": sums / x[0].numel()}

    def train_data(self, data: NodeData) -> Images:
        """(uint8 [height, width], int64 label)."""
        folder = locate(data, "images", self._default)
        if folder is None:
            raise TaskError("no images: name their folder in node.toml, [data.paths] images = ..., or set COVEY_DATA")
        images = self._read(folder, "train")
        if images is None:
            raise TaskError(f"no file train-images-idx3-ubyte or train-images-idx3-ubyte.gz in {folder}")
        return images

    def eval_data(self, data: NodeData) -> Images | None:
        """The test files beside the node's own images; with COVEY_DATA the coordinator has the same ones."""
        folder = locate(data, "images", "")
        return self._read(folder, "t10k") if folder else None

    def central_data(self) -> Images | None:
        """The test files in COVEY_DATA/<set> on the coordinator."""
        folder = locate(None, "images", self._default)
        return self._read(folder, "t10k") if folder else None

    def keys(self, dataset: Dataset[Any]) -> Sequence[Hashable] | None:
        """The writers."""
        return dataset.writers if isinstance(dataset, Images) else None

    @property
    def _default(self) -> str:
        return "" if self.options.set == "files" else self.options.set

    def _read(self, folder: Path, part: str) -> Images | None:
        images, labels = (_file(folder, f"{part}-images-idx3-ubyte"), _file(folder, f"{part}-labels-idx1-ubyte"))
        if images is None or labels is None:
            return None
        x, y = read_idx(images, 3), read_idx(labels, 1).long()
        shape = (self.options.height, self.options.width)
        if x.shape[1:] != shape or len(x) != len(y):
            shapes = f"{len(y)} labels for images {tuple(x.shape)}"
            raise TaskError(f"{folder}: {shapes}; height and width in task.options are {shape}")
        if len(y) and y.max() >= self.options.classes:
            raise TaskError(f"{labels}: has label {int(y.max())}; task.options.classes is {self.options.classes}")
        return Images(x, y, _writers(folder, part, len(y)))


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _writers(folder: Path, part: str, examples: int) -> list[Hashable] | None:
    path = folder / "writers.npz"
    if part != "train" or not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        writers = arrays["train_writer"]
    if writers.shape != (examples,):
        raise TaskError(f"{path}: train_writer has shape {writers.shape} for {examples} images")
    return list(writers.tolist())
