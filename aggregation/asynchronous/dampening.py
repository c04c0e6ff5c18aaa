"""How much an update of staleness tau counts: functions that are 1 at tau = 0 and never rise."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from covey.options import PluginOptions

Kind = Literal["none", "inverse", "exponential", "polynomial", "hinge"]


def inverse(tau: int) -> float:
    """1 / (1 + tau): DynSGD's, and Kardam's in its authors' code."""
    return 1.0 / (1 + tau)


def exponential(tau: int, alpha: float) -> float:
    """exp(-alpha tau): Kardam's other one (alpha = 0.2 in its authors' code)."""
    return math.exp(-alpha * tau)


def polynomial(tau: int, a: float) -> float:
    """(1 + tau)^-a: FedAsync's `s_a` (arXiv 1903.03934, section 5.2); a = 1/2 is FedBuff's 1 / sqrt(1 + tau)."""
    return float((1 + tau) ** -a)


def hinge(tau: int, a: float, b: int) -> float:
    """1 up to tau = b, then 1 / (a (tau - b) + 1): FedAsync's `s_{a,b}` (arXiv 1903.03934, section 5.2)."""
    return 1.0 if tau <= b else 1.0 / (a * (tau - b) + 1)


class DampeningOptions(PluginOptions):
    """Options of every policy that lets staleness weigh."""

    dampening: Kind = "none"
    """How an update's share falls with its staleness."""
    dampening_rate: Annotated[float, Field(gt=0)] | None = None
    """alpha of `exponential` (0.2), a of `polynomial` (0.5) and `hinge` (10); default: as in brackets."""
    hinge_at: int = Field(default=4, ge=0)
    """b of `hinge`: up to this staleness an update counts in full."""

    def factor(self, tau: int) -> float:
        """Lambda(tau), in (0, 1] (0 where it underflows)."""
        rate = self.dampening_rate
        if self.dampening == "inverse":
            return inverse(tau)
        if self.dampening == "exponential":
            return exponential(tau, 0.2 if rate is None else rate)
        if self.dampening == "polynomial":
            return polynomial(tau, 0.5 if rate is None else rate)
        if self.dampening == "hinge":
            return hinge(tau, 10.0 if rate is None else rate, self.hinge_at)
        return 1.0
