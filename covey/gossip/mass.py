"""Mass in whole units, so that sums are exact: a node begins with `ONE`, and what is given away is rounded down."""

from __future__ import annotations

from fractions import Fraction

ONE = 1 << 52
"""The mass of a node that begins, in units of 2 ** -52."""


TOKEN = 1
"""What a batch carries where mass means nothing, because its receiver weighs: so the accounts count batches."""


def part_of(units: int, share: Fraction) -> int:
    """A share of a mass, rounded down: the rest stays where it is."""
    return units * share.numerator // share.denominator


def weight(units: int) -> float:
    """A mass as push-sum writes it: 1.0 is what a node begins with."""
    return units / ONE
