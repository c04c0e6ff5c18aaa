"""What a private run has spent, as metrics of its versions; when its budget is spent, and what it will come to."""

from __future__ import annotations

from covey.codecs.contract import Codec
from covey.learning.privacy import rounds_within
from covey.metrics import DELTA, EPSILON, SIMULATED_EPSILON, Totals
from covey.spec import RunSpec
from covey.worker.execute.from_spec import account_in, noised_method
from covey.worker.jobs.runs import PrivacyForecast


def spent_metrics(spec: RunSpec, codec: Codec, rounds: int) -> dict[str, Totals]:
    """`privacy/epsilon` and `privacy/delta` after so many rounds, or trainings of a node; {} where nothing is private.

    Of unit "example" a node sends at most one message a round: what it has finished is sent again as it is. A node that
    had to make one again all the same counts it, and says so with its update.

    Raises:
        PluginError: The package for it is not installed.
    """
    account = account_in(spec, codec)
    if account is None:
        return {}
    budget = account(rounds)
    return {EPSILON if _is_secret(spec) else SIMULATED_EPSILON: (budget.epsilon, 1.0), DELTA: (budget.delta, 1.0)}


def rounds_in_budget(spec: RunSpec, codec: Codec) -> int | None:
    """How many rounds a run has before `[stop] epsilon` is spent; None: all of them, or there is no such budget.

    Raises:
        PluginError: The package for it is not installed.
    """
    account, budget, most = account_in(spec, codec), spec.stop.epsilon, spec.rounds_in_all
    if account is None or budget is None:
        return None
    rounds = rounds_within(account, budget, most)
    return rounds if rounds < most else None


def forecast(spec: RunSpec, codec: Codec) -> PrivacyForecast | None:
    """What a run in rounds will have spent when it ends; None: nothing that is accounted for.

    Raises:
        PluginError: The package for it is not installed.
    """
    account = account_in(spec, codec) if spec.facts.synchronous else None
    if account is None:
        return None
    last = rounds_in_budget(spec, codec)
    rounds = spec.rounds_in_all if last is None else last
    spent = account(rounds)
    return PrivacyForecast(spent.epsilon, spent.delta, spent.unit, rounds, _is_secret(spec))


def in_words(expected: PrivacyForecast | None, spec: RunSpec) -> str:
    """A forecast for people; empty: there is none."""
    if expected is None:
        return ""
    whose = "each example of a node" if expected.unit == "example" else "each node that takes part in all of them"
    spends = f"epsilon = {expected.epsilon:.3g} (delta = {expected.delta:g}) for {whose}"
    rounds, whole = expected.rounds, spec.rounds_in_all
    ends = f"after {rounds} rounds, all of them," if rounds > 1 else "after its one round"
    if rounds < whole:
        ends = f"[stop] epsilon = {spec.stop.epsilon:g} ends the run after round {rounds} of {whole}, when"
    simulated = "" if expected.is_secret else "; its noise is drawn from its seed, so that it is not private"
    return f"privacy: {ends} it has spent {spends}{simulated}"


def _is_secret(spec: RunSpec) -> bool:
    method = noised_method(spec)
    if method is not None:
        return not method.reproducible
    return spec.privacy is None or not spec.privacy.reproducible
