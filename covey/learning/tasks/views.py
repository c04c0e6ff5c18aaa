"""Random changes of images that leave their label as it is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def shifted(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Each image moved by up to `most` pixels up or down, left or right (a random crop of a frame of zeros).

    Args:
        images: `[n, height, width]`, of any dtype.
        most: At least 0.
        generator: On the CPU.
    """
    count, height, width = images.shape
    framed = functional.pad(images, (most, most, most, most))
    top, left = torch.randint(2 * most + 1, (2, count, 1), generator=generator)
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    at = torch.arange(count).view(-1, 1, 1)
    places = (part.to(images.device) for part in (at, rows[:, :, None], columns[:, None, :]))
    return framed[tuple(places)]


def noisy(images: Tensor, deviation: float, generator: torch.Generator, most: float = 1.0) -> Tensor:
    """Images with normal noise in each pixel, cut to 0..`most`; whole numbers are rounded, and stay of their dtype."""
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    changed = (images + deviation * noise).clamp(0, most)
    return changed if images.is_floating_point() else changed.round().to(images.dtype)
