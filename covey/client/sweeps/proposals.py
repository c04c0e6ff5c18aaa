"""The values that a trial is given: a point of the grid, drawn at random, by TPE, or near another trial's.

Each is a function of the sweep's seed, the trial's number and what is known of the others, and of nothing else: a sweep
that was killed proposes what it would have proposed.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from random import Random
from typing import Any, Literal

from covey.client.sweeps.specification import Dimension, Params, Population
from covey.errors import NotFound
from covey.seeds import derive_seed

Space = Mapping[str, Dimension]
Value = bool | int | float | str


@dataclass(frozen=True)
class Tried:
    """What is known of a trial.

    Attributes:
        params: Its values.
        state: How far it is.
        values: The mean of its metric by number of rounds, in order.
    """

    params: Params
    state: Literal["running", "pruned", "completed", "failed"]
    values: Mapping[int, float] = field(default_factory=dict)


def grid(space: Space) -> list[Params]:
    """All points, the last key varying fastest."""
    return [dict(zip(space, point, strict=True)) for point in product(*(each.grid for each in space.values()))]


def drawn(space: Space, seed: int, number: int) -> Params:
    """Values of a trial, drawn independently of all others."""
    rng = Random(derive_seed(seed, "sweep", number))
    return {key: _draw(dimension, rng) for key, dimension in space.items()}


def by_tpe(space: Space, seed: int, number: int, others: Sequence[Tried], *, highest: bool) -> Params:
    """What a tree-structured Parzen estimator (Bergstra et al., 2011) suggests: Optuna's ask, after the others' tell.

    The sampler is made anew for each trial, with a seed of the trial's own, and told what is on record: its state is
    that record. A trial that was pruned counts by its last value, and one that still runs as a bad one.

    Raises:
        NotFound: Optuna is not installed; the message says what to do.
    """
    try:
        optuna = importlib.import_module("optuna")
    except ModuleNotFoundError as error:
        raise NotFound('method = "tpe" is done by Optuna: pip install \'covey[sweep]\'; or write "random"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=derive_seed(seed, "tpe", number) % 2**32, constant_liar=True)
    study = optuna.create_study(sampler=sampler, direction="maximize" if highest else "minimize")
    distributions = {key: _distribution(optuna.distributions, dimension) for key, dimension in space.items()}
    states = optuna.trial.TrialState
    names = {"running": states.RUNNING, "pruned": states.PRUNED, "completed": states.COMPLETE, "failed": states.FAIL}
    for tried in others:
        last = list(tried.values.values())[-1:]
        study.add_trial(
            optuna.trial.create_trial(
                state=names[tried.state],
                params=dict(tried.params),
                distributions=distributions,
                intermediate_values=dict(tried.values),
                value=last[0] if last and tried.state in ("completed", "pruned") else None,
            )
        )
    return dict(study.ask(distributions).params)


def explored(space: Space, rule: Population, params: Params, rng: Random) -> Params:
    """Values near a better member's: each perturbed, or drawn anew (Jaderberg et al., 2017, `explore`)."""
    return {key: _explore(dimension, rule, params[key], rng) for key, dimension in space.items()}


def _draw(dimension: Dimension, rng: Random) -> Value:
    if dimension.choice:
        return rng.choice(dimension.choice)
    if dimension.integers:
        return rng.randint(*dimension.integers)
    if dimension.log_uniform:
        low, high = dimension.log_uniform
        return min(max(math.exp(rng.uniform(math.log(low), math.log(high))), low), high)
    low, high = dimension.uniform or (0.0, 0.0)
    return rng.uniform(low, high)


def _explore(dimension: Dimension, rule: Population, value: Value, rng: Random) -> Value:
    if rng.random() < rule.resample:
        return _draw(dimension, rng)
    is_up = rng.random() < 0.5
    if dimension.choice:
        place = dimension.choice.index(value) + (1 if is_up else -1)
        return dimension.choice[min(max(place, 0), len(dimension.choice) - 1)]
    moved = float(value) * (rule.perturb if is_up else 1 / rule.perturb)
    if dimension.integers:
        whole = round(moved)
        whole += (1 if is_up else -1) if whole == value else 0
        return min(max(whole, dimension.integers[0]), dimension.integers[1])
    low, high = dimension.uniform or dimension.log_uniform or (moved, moved)
    return min(max(moved, low), high)


def _distribution(kinds: Any, dimension: Dimension) -> Any:
    if dimension.choice:
        return kinds.CategoricalDistribution(dimension.choice)
    if dimension.integers:
        return kinds.IntDistribution(*dimension.integers)
    if dimension.log_uniform:
        return kinds.FloatDistribution(*dimension.log_uniform, log=True)
    return kinds.FloatDistribution(*(dimension.uniform or (0.0, 0.0)))
