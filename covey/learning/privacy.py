"""What a private run has spent of its privacy, over all its rounds.

What is hidden is whether one example of a node, or one node of a round, contributes anything: neighbours are data sets
of which one has, in the place of an example of the other, one whose gradient is zero (zero-out neighbours; Kairouz et
al., ICML 2021, from memory), and rounds of which one has zero in the place of a node's update. So how many examples a
node has, and who took part, is not hidden. For one example replaced by any other the sum moves by up to 2 C: the
epsilon of half the noise.

Noise of [privacy] on examples is accounted as the Gaussian mechanism under Poisson sampling, which is how they are
drawn (Abadi et al., CCS 2016, arXiv 1607.00133; Mironov, Talwar, Zhang, arXiv 1908.10530). Nothing else is amplified:
batches of a private codec are shuffled by the run's seed, and which nodes take part is on record.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from covey.codecs.contract import Codec, MessagePrivacy
from covey.errors import PluginError
from covey.spec import PrivacySection, RunSpec, TrainingSection

_LEAST_STEP, _RELATIVE_STEP = 1e-4, 1e-5
"""Of the grid of privacy losses: a hundred thousand steps or fewer for each epsilon."""
_COARSER = 10
"""So much wider are the steps where noise on samples is composed: still an upper limit, by some thousandths."""
_WHOLE_ORDERS = [*range(2, 64), 128, 256, 512, 1024]
"""Of Renyi divergences: of samples the others are slow to compute, and sometimes cannot be."""


@dataclass(frozen=True)
class PrivacySpent:
    """(epsilon, delta)-differential privacy of everything that one node has sent.

    Attributes:
        epsilon: How much the odds of anything seen may change, as a natural logarithm.
        delta: But for this probability.
        unit: Whose contribution is hidden: one example's of that node, or the node's.
    """

    epsilon: float
    delta: float
    unit: Literal["example", "node"] = "example"


Account = Callable[[int], PrivacySpent]
"""What so many rounds spend."""


def account_of(spec: RunSpec, codec: Codec) -> Account | None:
    """What rounds of a run spend; None: it protects nothing, or its codec cannot be accounted for.

    Raises:
        PluginError: Of the account: the package dp-accounting is not installed.
    """
    section, message = spec.privacy, codec.privacy
    if section is not None:
        return lambda rounds: spent_by(section, spec.training, rounds)
    if message is not None:
        return lambda rounds: spent(message, rounds)
    return None


def rounds_within(account: Account, epsilon: float, most: int) -> int:
    """The most rounds, of `most`, that spend epsilon or less."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2 if high < most else high  # as a rule the whole run fits
        low, high = (middle, high) if account(middle).epsilon <= epsilon else (low, middle - 1)
    return low


def private_steps(section: PrivacySection, training: TrainingSection) -> int:
    """How many steps a node takes in a round: `local_steps`, or epochs of 1 / q steps.

    It does not depend on how many examples a node has.
    """
    if training.local_steps is not None:
        return training.local_steps
    return math.ceil((training.local_epochs or 1) / section.sampling - 1e-9)


def spent_by(section: PrivacySection, training: TrainingSection, rounds: int) -> PrivacySpent:
    """What rounds of a run with [privacy] spend: of each node's examples, or of a node that took part in all of them.

    The least of what Renyi divergences and privacy loss distributions give (both upper limits).

    Raises:
        ValueError: Fewer than 0 rounds.
        PluginError: The package dp-accounting is not installed.
    """
    if rounds < 0:
        raise ValueError(f"no privacy is spent in {rounds} rounds")
    if not rounds:
        return PrivacySpent(0.0, 0.0, section.unit)
    steps = rounds * (private_steps(section, training) if section.unit == "example" else 1)
    limits = _of_samples(section.noise, section.sampling, steps, section.delta)
    return PrivacySpent(min(limits), section.delta, section.unit)


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
    library = _library()
    if message.mechanism == "laplace":
        return _epsilons(library.SelfComposedDpEvent(library.LaplaceDpEvent(message.noise), rounds), delta)
    return _epsilons(_gaussians(message.noise, rounds), delta)


@lru_cache(maxsize=256)
def _of_samples(noise: float, sampling: float, steps: int, delta: float) -> tuple[float, ...]:
    if sampling == 1:
        return _epsilons(_gaussians(noise, steps), delta)
    library = _library()
    step = library.PoissonSampledDpEvent(sampling, library.GaussianDpEvent(noise))
    return _epsilons(library.SelfComposedDpEvent(step, steps), delta, coarser=_COARSER)


def _gaussians(noise: float, number: int) -> Any:
    """Gaussian messages are together one Gaussian message, with noise smaller by the root of their number."""
    return _library().GaussianDpEvent(noise / math.sqrt(number))


def _epsilons(event: Any, delta: float, coarser: int = 1) -> tuple[float, ...]:
    from dp_accounting import pld, rdp  # type: ignore[import-untyped]

    orders = _WHOLE_ORDERS if coarser > 1 else None
    renyi = float(rdp.RdpAccountant(orders).compose(event).get_epsilon(delta))
    # Coarser steps than the usual 1e-4 are still an upper limit, and make a large epsilon as quick as a small one.
    step = coarser * max(_LEAST_STEP, renyi * _RELATIVE_STEP)
    exact = pld.PLDAccountant(_library().NeighboringRelation.ADD_OR_REMOVE_ONE, step).compose(event)
    return renyi, float(exact.get_epsilon(delta))


def _library() -> Any:
    # Takes a second or two to import, and most runs have no need of it.
    try:
        import dp_accounting
    except ImportError as error:
        raise PluginError('privacy accounting needs the package dp-accounting: pip install "covey[privacy]"') from error
    return dp_accounting
