"""Views of images: moved, noisy, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from covey.learning.task import NodeData, Task
from covey.learning.tasks.digits import Digits
from covey.learning.tasks.idx_images import IdxImages
from covey.learning.tasks.synthetic import Synthetic
from covey.learning.tasks.views import noisy, shifted


def source(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_image_is_moved_by_itself_and_nothing_wraps_around() -> None:
    images = torch.zeros(60, 4, 5, dtype=torch.uint8)
    images[:, 1, 2] = 7
    moved = shifted(images, 2, source())
    assert (moved.shape, moved.dtype) == (images.shape, images.dtype)
    places = {tuple(place) for image in moved for place in image.nonzero().tolist()}
    assert places == {(row, column) for row in range(4) for column in range(5)}
    assert all(image.count_nonzero() <= 1 for image in moved)
    assert torch.equal(shifted(images, 0, source()), images)


@pytest.mark.parametrize(
    ("images", "deviation", "most"),
    [(torch.full((9, 6, 6), 0.5), 0.1, 1), (torch.full((9, 6, 6), 128, dtype=torch.uint8), 16, 255)],
)
def test_noise_is_as_large_as_it_is_said(images: Tensor, deviation: float, most: float) -> None:
    changed = noisy(images, deviation, source(), most)
    assert changed.dtype == images.dtype
    assert (changed.float() - images.float()).std().item() == pytest.approx(deviation, rel=0.15)
    wild = noisy(images, 100 * most, source(), most)
    assert (wild.min().item(), wild.max().item()) == (0, most)


@pytest.mark.parametrize("task", [Digits(), IdxImages()])
def test_tasks_with_images_have_views(task: Task) -> None:
    x = (
        Digits().train_data(NodeData()).tensors[0][:5]
        if isinstance(task, Digits)
        else torch.full((5, 28, 28), 100, dtype=torch.uint8)
    )
    before, y = x.clone(), torch.arange(5)
    first, labels = task.view((x, y), source())
    assert task.has_views
    assert (first.shape, first.dtype) == (x.shape, x.dtype)
    assert torch.equal(labels, y)
    assert torch.equal(x, before)
    assert torch.equal(first, task.view((x, y), source())[0])
    assert not torch.equal(first, task.view((x, y), source(2))[0])


def test_a_task_without_views_says_so() -> None:
    assert not Synthetic().has_views
    assert Synthetic().view("batch", source()) == "batch"
