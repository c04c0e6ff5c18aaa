"""What happens to messages and machines of a simulated gossip run, as options say it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from covey.client.experiments.gossip import Network, Partition

F = TypeVar("F", bound=Callable[..., Any])
N = TypeVar("N", int, float)
TIME = "in steps of training"
OPTIONS = {
    "loss": "--loss",
    "delay": "--delay",
    "speeds": "--slow",
    "dies": "--dies",
    "returns": "--returns",
    "leaves": "--leaves",
    "joins": "--joins",
    "partitions": "--partition",
    "churn": "--churn",
}
"""Attributes of `Network`, and the options that say them."""


def network_options(command: F, where: str = "") -> F:
    """Give a command what a network and machines can do to a gossip run, as `network: Network`.

    Args:
        command: The command.
        where: Said before what each option does: of which runs it is, where the command runs others too.
    """
    several = functools.partial(click.option, multiple=True)
    number = functools.partial(click.option, default=0.0, show_default=True)

    def says(what: str) -> str:
        return f"{where}{what}" if where else f"{what[0].upper()}{what[1:]}"

    loss = click.FloatRange(0, 1, max_open=True)
    for each in (
        number("--churn", type=click.FloatRange(0, 1), help=says("kills of each node in a step.")),
        several("--partition", "partitions", metavar="A,B/C,D=FROM-TO", help=says("sides that are cut off, when.")),
        several("--joins", metavar="NODE=TIME", help=says(f"a node that comes later, {TIME}.")),
        several("--leaves", metavar="NODE=STEP", help=says("a node that leaves in order after so many steps.")),
        several("--returns", metavar="NODE=TIME", help=says("when one that --dies is back, with its record.")),
        several("--dies", metavar="NODE=STEP", help=says("a node that ends for good after so many steps.")),
        several("--slow", "speeds", metavar="NODE=SPEED", help=says("a machine's speed; the others have 1.")),
        number("--delay", type=click.FloatRange(0), help=says(f"of messages on average, {TIME}.")),
        number("--loss", type=loss, help=says("chance of a message to be lost.")),
    ):
        command = each(command)

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return command(*args, network=_network(**{name: kwargs.pop(name) for name in OPTIONS}), **kwargs)

    return wrapped  # type: ignore[return-value]


def given_of(network: Network) -> Iterator[str]:
    """The options by which somebody said something."""
    usual = type(network)()
    return (option for name, option in OPTIONS.items() if getattr(network, name) != getattr(usual, name))


def _network(
    *,
    loss: float,
    delay: float,
    speeds: Sequence[str],
    dies: Sequence[str],
    returns: Sequence[str],
    leaves: Sequence[str],
    joins: Sequence[str],
    partitions: Sequence[str],
    churn: float,
) -> Network:
    from covey.client.experiments.gossip import Network

    return Network(
        loss,
        delay,
        _pairs(speeds, "--slow", float),
        _pairs(dies, "--dies", int),
        _pairs(leaves, "--leaves", int),
        _pairs(joins, "--joins", float),
        _pairs(returns, "--returns", float),
        tuple(map(_partition, partitions)),
        churn,
    )


def _pairs(texts: Sequence[str], option: str, kind: Callable[[str], N]) -> dict[str, N]:
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise click.UsageError(f"{option} {text!r}: write NODE=NUMBER")
        values[name] = _number(value, kind, f"{option} {text!r}")
        if not values[name] > 0:
            raise click.UsageError(f"{option} {text!r}: it must be above 0")
    return values


def _number(text: str, kind: Callable[[str], N], where: str) -> N:
    try:
        value = kind(text)
    except ValueError:
        raise click.UsageError(f"{where}: {text!r} is no number") from None
    if not math.isfinite(value):
        raise click.UsageError(f"{where}: {text!r} has no end")
    return value


def _partition(text: str) -> Partition:
    from covey.client.experiments.gossip import Partition

    where, (names, _, times) = f"--partition {text!r}", text.rpartition("=")
    since, dash, until = times.partition("-")
    if not names or not dash:
        raise click.UsageError(f"{where}: write NODE,NODE/NODE,NODE=FROM-TO")
    sides = tuple(frozenset(filter(None, side.split(","))) for side in names.split("/"))
    return Partition(sides, _number(since, float, where), _number(until, float, where))
