"""What a run with a private codec has spent of its privacy, over all its rounds.

What is hidden is whether one example of a node contributes anything: data sets are neighbours if one of them has, in
the place of an example of the other, one whose gradient is zero (zero-out neighbours; Kairouz et al., ICML 2021, from
memory). An example that is really left out would also reorder the batches of the others, which the run's seed decides.
For one example replaced by any other the sum moves by up to 2 C: the epsilon of half the noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from covey.codecs.contract import MessagePrivacy
from covey.errors import PluginError

_LEAST_STEP, _RELATIVE_STEP = 1e-4, 1e-5
"""Of the grid of privacy losses: a hundred thousand steps or fewer for each epsilon."""


@dataclass(frozen=True)
class PrivacySpent:
    """(epsilon, delta)-differential privacy of everything that one node has sent.

    Attributes:
        epsilon: How much the odds of anything seen may change, as a natural logarithm.
        delta: But for this probability.
        unit: Whose contribution is hidden: one example's of that node.
    """

    epsilon: float
    delta: float
    unit: Literal["example"] = "example"


def spent(message: MessagePrivacy, rounds: int, delta: float | None = None) -> PrivacySpent:
    """What a node spends on its examples in some rounds.

    The least of what Renyi divergences and privacy loss distributions give (both upper limits, of the package
    dp-accounting), and of the plain sum of the rounds' epsilons where delta allows it. No amplification by sampling is
    claimed: an example counts as if it were in every batch. A round that is trained again counts again. Laplace noise
    with delta = 0 spends the plain sum.

    Args:
        message: What one message spends (`Codec.privacy`).
        rounds: How many messages the node has sent, those that did not arrive too.
        delta: Of all rounds together; default: that of one message.

    Raises:
        ValueError: Fewer than 0 rounds, or a delta that is not in [0, 1) (with Gaussian noise, not in (0, 1)).
        PluginError: The package dp-accounting is not installed.
    """
    total = message.delta if delta is None else delta
    if rounds < 0 or not 0 <= total < 1 or (total == 0 and message.delta > 0):
        raise ValueError(f"no privacy is spent in {rounds} rounds with delta = {total}")
    if not rounds:
        return PrivacySpent(0.0, 0.0)
    limits = [message.epsilon * rounds] if message.delta * rounds <= total else []
    if total:
        limits += _composed(message, rounds, total)
    return PrivacySpent(min(limits), total)


@lru_cache(maxsize=256)
def _composed(message: MessagePrivacy, rounds: int, delta: float) -> tuple[float, ...]:
    # Takes a second or two to import, and most runs have no need of it.
    try:
        import dp_accounting  # type: ignore[import-untyped]
        from dp_accounting import pld, rdp
    except ImportError as error:
        raise PluginError('privacy accounting needs the package dp-accounting: pip install "covey[privacy]"') from error

    if message.mechanism == "laplace":
        event = dp_accounting.SelfComposedDpEvent(dp_accounting.LaplaceDpEvent(message.noise), rounds)
    else:
        # Gaussian messages are together one Gaussian message, with noise smaller by the root of their number.
        event = dp_accounting.GaussianDpEvent(message.noise / math.sqrt(rounds))
    renyi = float(rdp.RdpAccountant().compose(event).get_epsilon(delta))
    # Coarser steps than the usual 1e-4 are still an upper limit, and make a large epsilon as quick as a small one.
    step = max(_LEAST_STEP, renyi * _RELATIVE_STEP)
    exact = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, step).compose(event)
    return renyi, float(exact.get_epsilon(delta))
