"""The adversaries of a simulation, as options say them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from covey.simulation.adversaries import Attack


def attacks_of(texts: tuple[str, ...], option_texts: tuple[str, ...]) -> list[Attack]:
    """The adversaries that `--attack` and `--attack-option` ask for. Raises UsageError."""
    from covey.simulation.adversaries import Attack

    options = _attack_options(option_texts)
    attacks = []
    for text in texts:
        name, equals, count = text.partition("=")
        if not equals or not name or not count:
            raise click.UsageError(f"--attack {text!r}: write NAME=COUNT")
        if not count.isdecimal():
            raise click.UsageError(f"--attack {text!r}: COUNT must be a number of nodes")
        attacks.append(Attack(name, int(count), options.pop(name, {})))
    if len({attack.name for attack in attacks}) < len(attacks):
        raise click.UsageError("--attack: name each attack once")
    if options:
        raise click.UsageError(f"--attack-option: no --attack {', '.join(sorted(options))} is given")
    return attacks


def _attack_options(texts: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    from covey.node.operator.adversary import parse_options

    by_attack: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, dot, rest = text.partition(".")
        if not dot or "=" in name:
            raise click.UsageError(f"--attack-option {text!r}: write NAME.KEY=VALUE")
        by_attack.setdefault(name, {}).update(parse_options((rest,)))
    return by_attack
