"""What a node's operator allows, as far as only the worker can tell: it depends on the data, or on the method."""

from __future__ import annotations

from covey.codecs.contract import Codec
from covey.errors import PolicyError
from covey.learning.privacy import private_steps, rounds_within
from covey.learning.training.loop import steps_in_round
from covey.methods.contract import Method
from covey.metrics import Totals
from covey.spec import RunSpec
from covey.worker.execute.from_spec import account_in, noised_method
from covey.worker.execute.privacy_metrics import forecast, spent_metrics
from covey.worker.jobs.training import UNBOUNDED, TrainLimits


def check_limits(limits: TrainLimits, spec: RunSpec, examples: int, parameters: int = 0) -> None:
    """Hold a training against the operator's limits, before it begins.

    Args:
        limits: The operator's.
        spec: The run.
        examples: Of the node's part of the data.
        parameters: Of the whole model.

    Raises:
        PolicyError: It asks for more; the message says what would have to change.
    """
    if parameters > limits.parameters:
        raise PolicyError(
            f"a model of {parameters:,} parameters, those that stay here included; this node's operator allows "
            f"{limits.parameters:,.0f} ([limits] parameters in node.toml)"
        )
    if not examples:
        return  # which the training itself says
    batch = min(spec.training.batch_size, examples)
    steps = 1 if spec.exchange.payload == "gradient" else steps_in_round(spec.training, examples)
    if spec.privacy is not None and spec.privacy.unit == "example":
        batch, steps = int(spec.privacy.sampling * examples), private_steps(spec.privacy, spec.training)
    if batch < limits.batch_size:
        raise PolicyError(
            f"a batch of {batch} examples; this node's operator allows none below {limits.batch_size} "
            "([limits] least_batch_size in node.toml)"
        )
    if min(examples, steps * batch) < limits.examples:
        raise PolicyError(
            f"an update behind which are {min(examples, steps * batch)} examples; this node's operator allows none of "
            f"fewer than {limits.examples} ([limits] least_examples in node.toml)"
        )
    if steps > limits.epochs * -(-examples // max(1, batch)):
        raise PolicyError(
            f"{steps} steps of {batch} over {examples} examples; this node's operator allows {limits.epochs:g} epochs "
            "([limits] epochs in node.toml)"
        )


def check_answer(limits: TrainLimits, examples: int) -> None:
    """Hold the number of examples behind an evaluation that is sent against the operator's least.

    Raises:
        PolicyError: There are fewer.
    """
    if examples < limits.examples:
        raise PolicyError(
            f"an evaluation on {examples} examples; this node's operator allows no answer behind which are fewer than "
            f"{limits.examples} ([limits] least_examples in node.toml)"
        )


def check_consent(limits: TrainLimits, method: Method) -> None:
    """Hold what a method's updates tell of the data beside a model against the operator's policy, first of all.

    Raises:
        PolicyError: They tell more; the message says what would have to change.
    """
    order = ("off", "noisy", "exact")
    if order.index(method.label_counts) > order.index(limits.label_counts):
        raise PolicyError(
            f'this run asks how many examples of each label there are ("{method.label_counts}"); this node\'s operator '
            f'allows "{limits.label_counts}" ([policy] label_counts in node.toml)'
        )
    if method.statistics and not limits.min_k:
        raise PolicyError(
            "this run asks for statistics of the data; this node's operator has not said of how few examples something "
            "may be told ([policy] min_k in node.toml)"
        )
    if method.statistics and method.privacy is not None and limits.max_epsilon >= UNBOUNDED and limits.min_k != 1:
        raise PolicyError(
            "this run asks for statistics of the data with noise; this node's operator has not said how much of their "
            "privacy it may spend ([policy] max_epsilon in node.toml)"
        )
    if method.representations and not limits.representations:
        raise PolicyError(
            "this run asks for what its model makes of single examples, with their labels; this node's operator does "
            "not allow it ([policy] representations in node.toml)"
        )


def check_privacy(limits: TrainLimits, spec: RunSpec, codec: Codec, before: int) -> dict[str, Totals]:
    """Hold what a training spends of the privacy of this node's examples against the operator's floor.

    Args:
        limits: The operator's.
        spec: The run.
        codec: The run's.
        before: How many private updates this node has made in the run before.

    Returns:
        What the node has spent in the run once this one is made, as metrics; {} without [privacy] of unit "example".

    Raises:
        PolicyError: It spends more, or does not protect examples on the node; the message says what would have to
            change.
        PluginError: The package for the account is not installed.
    """
    section, account, method = spec.privacy, account_in(spec, codec), noised_method(spec)
    is_own = codec.private if section is None else section.unit == "example" and not section.reproducible
    is_seeded = section is not None and section.reproducible
    message = codec.privacy
    if method is not None:
        is_own, is_seeded, message = not method.reproducible, method.reproducible, method.privacy
    if limits.wants_privacy and not (is_own and account is not None):
        reason = "its noise is drawn from the run's seed" if is_seeded else ""
        reason = reason or "its nodes add no noise of their own that hides single examples"
        raise PolicyError(
            f"this run is not private on this node: {reason}; this node's operator wants that ([policy] max_epsilon "
            'and least_noise in node.toml), and [privacy] unit = "example" gives it'
        )
    if account is None or not is_own:
        return spent_metrics(spec, codec, before + 1) if section is not None and section.unit == "example" else {}
    noise = section.noise if section is not None else message.noise if message is not None else 0.0
    if noise < limits.least_noise:
        raise PolicyError(
            f"a noise multiplier of {noise:g}; this node's operator allows none below {limits.least_noise:g} "
            "([policy] least_noise in node.toml)"
        )
    if not limits.wants_privacy and section is None:
        return {}
    spent = account(before + 1)
    if limits.max_epsilon < UNBOUNDED and spent.delta > limits.max_delta:
        raise PolicyError(
            f"a delta of {spent.delta:g}; this node's operator allows {limits.max_delta:g} ([policy] max_delta in "
            "node.toml)"
        )
    bounds = {"[policy] max_epsilon in node.toml": limits.max_epsilon, "[stop] epsilon": spec.stop.epsilon}
    for whose, bound in bounds.items():
        if bound is not None and spent.epsilon > bound:
            raise PolicyError(
                f"with this training the run would have spent epsilon = {spent.epsilon:.4g} of the privacy of this "
                f"node's examples, after {before} before it; {bound:g} is allowed ({whose})"
            )
    return spent_metrics(spec, codec, before + 1) if section is not None else {}


def declines_later(limits: TrainLimits, spec: RunSpec, codec: Codec) -> str:
    """In which round of a run that it takes part in this node would decline, for what that spends; empty: in none.

    Raises:
        PluginError: The package for the account is not installed.
    """
    expected, account = forecast(spec, codec), account_in(spec, codec)
    if expected is None or account is None or limits.max_epsilon >= UNBOUNDED:
        return ""
    rounds = rounds_within(account, limits.max_epsilon, expected.rounds)
    if rounds == expected.rounds:
        return ""
    return (
        f"from round {rounds + 1} of {expected.rounds} on this node would decline: what it had spent of its examples' "
        f"privacy would be more than {limits.max_epsilon:g} ([policy] max_epsilon in node.toml)"
    )
