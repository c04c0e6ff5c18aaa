"""What a private run has spent, as metrics of its versions; and the round after which its budget is spent."""

from __future__ import annotations

from covey.codecs.contract import Codec
from covey.learning.privacy import account_of, rounds_within
from covey.metrics import Totals
from covey.spec import RunSpec

EPSILON, DELTA = "privacy/epsilon", "privacy/delta"
SIMULATED = "privacy/simulated-epsilon"
"""What the run would have spent, had its noise not been drawn from its seed."""


def spent_metrics(spec: RunSpec, codec: Codec, rounds: int) -> dict[str, Totals]:
    """`privacy/epsilon` and `privacy/delta` after so many rounds, or trainings of a node; {} where nothing is private.

    Of unit "example" a node sends at most one message a round: what it has finished is sent again as it is. A node that
    had to make one again all the same counts it, and says so with its update.

    Raises:
        PluginError: The package for it is not installed.
    """
    account = account_of(spec, codec)
    if account is None:
        return {}
    budget = account(rounds)
    is_secret = spec.privacy is None or not spec.privacy.reproducible
    return {EPSILON if is_secret else SIMULATED: (budget.epsilon, 1.0), DELTA: (budget.delta, 1.0)}


def rounds_in_budget(spec: RunSpec, codec: Codec) -> int | None:
    """How many rounds a run has before `[stop] epsilon` is spent; None: all of them, or there is no such budget.

    Raises:
        PluginError: The package for it is not installed.
    """
    account, budget, most = account_of(spec, codec), spec.stop.epsilon, spec.rounds_in_all
    if account is None or budget is None:
        return None
    rounds = rounds_within(account, budget, most)
    return rounds if rounds < most else None
