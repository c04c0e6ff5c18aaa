"""Attacks: what adversaries send, for drills and experiments. docs/adversaries.md has the list."""

from covey.aggregation.attacks.contract import ATTACKS, Attack, AttackContext
from covey.aggregation.attacks.dissensus import Dissensus
from covey.aggregation.attacks.omniscient import ALIE, IPM, Mimic, MinMax, MinSum
from covey.aggregation.attacks.single import (
    Constant,
    Gaussian,
    LabelFlip,
    LazyCopy,
    NotANumber,
    Scaled,
    SignFlip,
    StaleReplay,
)

__all__ = [
    "ALIE",
    "ATTACKS",
    "IPM",
    "Attack",
    "AttackContext",
    "Constant",
    "Dissensus",
    "Gaussian",
    "LabelFlip",
    "LazyCopy",
    "Mimic",
    "MinMax",
    "MinSum",
    "NotANumber",
    "Scaled",
    "SignFlip",
    "StaleReplay",
]
