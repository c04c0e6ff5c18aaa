"""What is so of every run of a mode: what callers ask of it, instead of comparing its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Mode:
    """A mode.

    Attributes:
        name: As in `mode = "..."`, in the record and on the wire.
        section: The specification's section with its policy.
        unit: What a run has so many of, and progress is counted in.
        count_key: The key of `section` that says how many.
        rule_kind: The kind of plug-in that [aggregation] names.
        synchronous: Whether there are rounds of several nodes, all from the same version, which the next version
            follows: then a committed change can travel down, and root data, pre-aggregators and votes make sense.
        whole_shares: Whether the shares of a version's accepted updates are of one whole: they sum to one, or to less
            where the rule clips or keeps something of earlier rounds.
        keeps_policy_state: Whether the record holds a state that each decision changes.
        coordinated: Whether models pass through a coordinator; else it hands out who takes part, and observes.
    """

    name: str
    section: str
    unit: Literal["rounds", "updates", "steps"]
    count_key: str
    rule_kind: Literal["aggregator", "async-policy"]
    synchronous: bool
    whole_shares: bool
    keeps_policy_state: bool
    coordinated: bool = True
