"""What a run is counted in, by its mode: the one place that readers of the record ask."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

Unit = Literal["rounds", "updates"]


@dataclass(frozen=True)
class Counted:
    """How far a run has to go.

    Attributes:
        unit: `rounds`: each makes a version of many nodes' updates, and is over with it. `updates`: each is decided on
            by itself, and a version takes any number of them.
        asked: How many end the run; 0 where no specification is known.
    """

    unit: Unit
    asked: int = 0


_SECTIONS: dict[str, tuple[Unit, str, str]] = {"async": ("updates", "async", "updates")}
_DEFAULT: tuple[Unit, str, str] = ("rounds", "rounds", "count")


def unit_of(mode: str) -> Unit:
    """What a run of this mode is counted in."""
    return _SECTIONS.get(mode, _DEFAULT)[0]


def counted(mode: str, spec: str) -> Counted:
    """What a run is counted in, and how many it was asked for.

    Args:
        mode: The run's.
        spec: Canonical JSON of its specification; empty: none.
    """
    unit, section, key = _SECTIONS.get(mode, _DEFAULT)
    return Counted(unit, int(json.loads(spec).get(section, {}).get(key, 0)) if spec else 0)
