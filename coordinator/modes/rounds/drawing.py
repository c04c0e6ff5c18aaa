"""Which of the eligible nodes take part in a round, drawn from the run's seed; and how many of them must answer."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from covey.coordinator.modes.rounds.events import RoundPolicy
from covey.seeds import derive_seed


def drawn(policy: RoundPolicy, eligible: Sequence[str], round: int, attempt: int) -> tuple[str, ...]:
    """So many of them as the policy wants, in their order."""
    wanted = policy.participants
    number = math.ceil(wanted * len(eligible)) if isinstance(wanted, float) else min(wanted, len(eligible))
    number = max(number, min(policy.min_nodes, len(eligible)))
    if number == len(eligible):
        return tuple(eligible)
    rng = random.Random(derive_seed(policy.seed, "participants", round, attempt))
    chosen = set(rng.sample(eligible, number))
    return tuple(node for node in eligible if node in chosen)


def drawn_again(
    policy: RoundPolicy, eligible: Sequence[str], round: int, attempt: int, kept: Sequence[str]
) -> set[str]:
    """Those whose updates are `kept`, filled up with others to the wanted number."""
    wanted = drawn(policy, eligible, round, attempt)
    others = [node for node in wanted if node not in kept]
    return set(kept) | set(others[: max(0, len(wanted) - len(kept))])


def quorum_of(policy: RoundPolicy, invited: int) -> int:
    """How many updates a round needs to which so many nodes are invited."""
    return max(policy.min_nodes, math.ceil(policy.quorum * invited))
