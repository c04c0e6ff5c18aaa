"""Grid worlds, to gymnasium's interface: an agent walks from a free cell to the goal, and into no pit."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor

MAPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "east-a": ("......", ".##...", "....#G", ".O..#.", "....#.", "......"),
        "east-b": ("......", ".##...", "...O.G", "....#.", ".#..#.", "......"),
        "west-a": ("......", "...##.", "G#....", ".#..O.", ".#....", "......"),
        "west-b": ("......", "...##.", "G.O...", ".#....", ".#..#.", "......"),
    }
)
"""By name, in two pairs: `.` is free, `#` a wall, `O` a pit, `G` the goal, at the eastern or at the western edge."""
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""North, east, south, west: rows and columns."""
FEATURES = 6
STEP, PIT, GOAL = -0.02, -1.0, 1.0
"""What a move is rewarded with; every one costs a little."""
HORIZON = 40
"""After so many moves an episode is cut off."""


class Environment(Protocol):
    """What the agent needs of an environment: gymnasium's `Env`, whose observations are float32 `[features]`."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode: an observation, and further facts."""

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Do something: observation, reward, whether it has ended, whether it was cut off, and further facts."""


class GridWorld:
    """One map. Its observation is float32 `[6]`: row and column in -1 to 1, and for each move whether a wall bars it.

    The observation does not say where the goal is: agents on maps of the two pairs must act differently in the same
    place.

    Args:
        name: One of `MAPS`.
    """

    def __init__(self, name: str) -> None:
        self._rows = MAPS[name]
        self._free = [(r, c) for r, row in enumerate(self._rows) for c, cell in enumerate(row) if cell == "."]
        self._random, self._at, self._moves = torch.Generator(), self._free[0], 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Tensor, dict[str, Any]]:
        """Begin in a free cell that is drawn from the seed, or else from the stream of the last one."""
        if seed is not None:
            self._random.manual_seed(seed)
        drawn = int(torch.randint(len(self._free), (), generator=self._random))
        self._at, self._moves = self._free[drawn], 0
        return self._seen(), {}

    def step(self, action: int) -> tuple[Tensor, float, bool, bool, dict[str, Any]]:
        """Move, if no wall is in the way."""
        self._moves += 1
        if (cell := self._beside(action)) is not None:
            self._at = cell
        cell_now = self._rows[self._at[0]][self._at[1]]
        reward = {"G": GOAL, "O": PIT}.get(cell_now, STEP)
        return self._seen(), reward, cell_now in "GO", self._moves >= HORIZON, {}

    def _beside(self, action: int) -> tuple[int, int] | None:
        """The cell that a move leads to; None: none."""
        row, column = self._at[0] + MOVES[action][0], self._at[1] + MOVES[action][1]
        inside = 0 <= row < len(self._rows) and 0 <= column < len(self._rows[0])
        return (row, column) if inside and self._rows[row][column] != "#" else None

    def _seen(self) -> Tensor:
        size = len(self._rows) - 1
        place = [2 * coordinate / size - 1 for coordinate in self._at]
        return torch.tensor([*place, *(float(self._beside(action) is None) for action in range(len(MOVES)))])
