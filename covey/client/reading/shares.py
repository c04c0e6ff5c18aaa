"""Whose share of a round is not what its examples would give."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue, ValidationError

from covey.client.values import RoundDetail
from covey.spec.sections import WeightsSection


def capped_shares(detail: RoundDetail, spec: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The nodes that `weights.max_share` bounds in a round, with the share that their examples are.

    Args:
        detail: The round.
        spec: The run's specification, as it is stored.
    """
    try:
        weights = WeightsSection.model_validate(spec.get("weights") or {})
    except ValidationError:  # of a newer version
        return {}
    counted = {
        update.node: (update.weight, update.share)
        for update in detail.updates
        if update.verdict == "accepted" and update.share > 0
    }
    return dict(weights.capped(counted))
