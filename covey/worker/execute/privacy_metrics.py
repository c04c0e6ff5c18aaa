"""What a run with a private codec has spent of its nodes' privacy, as metrics of its versions."""

from __future__ import annotations

from covey.codecs.contract import Codec
from covey.learning.privacy import spent
from covey.metrics import Totals


def spent_metrics(codec: Codec, rounds: int) -> dict[str, Totals]:
    """`privacy/epsilon` and `privacy/delta` of each node's examples after so many rounds; {} without a private codec.

    A node sends at most one message a round: what it has finished is sent again as it is, and never trained again.

    Raises:
        PluginError: The package for it is not installed.
    """
    message = codec.privacy
    if message is None:
        return {}
    budget = spent(message, rounds)
    return {"privacy/epsilon": (budget.epsilon, 1.0), "privacy/delta": (budget.delta, 1.0)}
