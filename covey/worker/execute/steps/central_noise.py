"""Noise of the coordinator's, on the mean of clipped updates: it hides whether one node's data contribute to a round.

McMahan, Ramage, Talwar, Zhang, "Learning differentially private recurrent language models" (ICLR 2018, arXiv
1710.06963), algorithm 1 with flat clipping and fixed weights. Deviation: their sampling of users is not counted, as the
record has who took part; the denominator is the number of nodes that sent an update, which the record has, too.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

from covey.aggregation.contract import Aggregate
from covey.seeds import derive_seed
from covey.spec import RunSpec
from covey.vectors import LinearCombination
from covey.vectors.secret_noise import KEY_BYTES, NormalVector, subkey


def noised(result: Aggregate, share: float, sent: int, spec: RunSpec, round: int) -> Aggregate:
    """The sum of the clipped updates, with noise N(0, z^2 C^2), divided by the number of nodes that sent one.

    An update that cannot be read counts as zero. The noise of a step that is made again is new; what came of the first
    try was shown to nobody.

    Args:
        result: The mean of the updates that were used, each of norm C at most.
        share: The largest of an update in that mean.
        sent: How many were sent.
        spec: The run's, with [privacy] of unit "node".
        round: The round's number.

    Raises:
        ValueError: The run has no such section.
    """
    privacy = spec.privacy
    if privacy is None or privacy.unit != "node":
        raise ValueError("the run adds no noise here")
    key = secrets.token_bytes(KEY_BYTES)
    if privacy.reproducible:
        key = subkey(derive_seed(spec.seed, "privacy", round).to_bytes(KEY_BYTES, "big"), "reproducible")
    noise = NormalVector(key, result.direction.d)
    terms = [(result.direction, 1 / (share * sent)), (noise, privacy.noise * privacy.clip / sent)]
    return replace(result, direction=LinearCombination(terms))
