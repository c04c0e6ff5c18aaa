"""Which plug-ins of a coordinator's runs go together: every pair is asked for, as `covey run submit` would ask.

A pair goes together if a run with both is accepted for some choice of everything else that runs usually differ in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations

from covey.spec import RunSpec
from covey.testing.catalogue.cases import ROUNDS, STEPS_ALIKE, UPDATES, VOTES, Case, accepted, names

KEYS = {
    "aggregator": "rule",
    "async-policy": "rule",
    "pre-aggregator": "pre",
    "codec": "codec",
    "method": "method",
    "server-optimizer": "optimizer",
}
"""Kind to the key of a `Case` that holds its choice."""
MODES = {"aggregator": "rounds", "async-policy": "async"}
"""Kinds that are of one mode."""

Pairs = Mapping[tuple[str, str], Mapping[str, tuple[str, ...]]]
"""(kind, name) to kind to the names of that kind that it goes with."""


def surroundings() -> Iterator[Case]:
    """Runs that work, with what of them is otherwise where a choice needs it; the likely ones first."""
    equal, normed = {"weights": "equal"}, {"task": "NormedExample"}
    one_step = {"payload": "gradient", "steps": "one", "feedback": False}
    yield from (ROUNDS, ROUNDS | normed, ROUNDS | equal, STEPS_ALIKE, VOTES, VOTES | normed)
    yield from (ROUNDS | equal | one_step, UPDATES, UPDATES | normed, UPDATES | one_step, UPDATES | one_step | normed)


def goes(kind: str, name: str, other: str = "", other_name: str = "") -> bool:
    """Whether a run with both of a pair, or with one plug-in, is accepted."""
    return any(isinstance(accepted(case), RunSpec) for case in _cases([(kind, name), (other, other_name)]))


def _cases(chosen: Iterable[tuple[str, str]]) -> Iterator[Case]:
    """The pair in all surroundings that are possible at all; the likely ones first."""
    picked = [(kind, name) for kind, name in chosen if kind]
    modes = {MODES[kind] for kind, _ in picked if kind in MODES}
    if len(modes) > 1:
        return
    choice = {KEYS[kind]: name for kind, name in picked} | ({"mode": modes.pop()} if modes else {})
    for around in surroundings():
        if "mode" not in choice or choice["mode"] == around["mode"]:
            yield around | choice


def pairs() -> Pairs:
    """All pairs of different kinds."""
    goes_with: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {(k, n): {} for k in KEYS for n in names(k)}
    for kind, other in combinations(KEYS, 2):
        together = {(a, b) for a in names(kind) for b in names(other) if goes(kind, a, other, b)}
        for a in names(kind):
            goes_with[kind, a][other] = tuple(b for b in names(other) if (a, b) in together)
        for b in names(other):
            goes_with[other, b][kind] = tuple(a for a in names(kind) if (a, b) in together)
    return goes_with
