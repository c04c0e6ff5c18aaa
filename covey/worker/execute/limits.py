"""What a node's operator allows, as far as only the worker can tell: it depends on the data, or on the method."""

from __future__ import annotations

from covey.errors import PolicyError
from covey.learning.training.loop import steps_in_round
from covey.methods.contract import Method
from covey.spec import RunSpec
from covey.worker.jobs.training import TrainLimits


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
    if steps > limits.epochs * -(-examples // batch):
        raise PolicyError(
            f"{steps} steps of {batch} over {examples} examples; this node's operator allows {limits.epochs:g} epochs "
            "([limits] epochs in node.toml)"
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
    if method.representations and not limits.representations:
        raise PolicyError(
            "this run asks for what its model makes of single examples, with their labels; this node's operator does "
            "not allow it ([policy] representations in node.toml)"
        )
