"""`covey round`: the rounds of a run, and one round's updates with their verdicts and reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from covey.cli.framework.command import Group, print_json
from covey.cli.framework.fields import ROUND_FIELDS, UPDATE_FIELDS, VERSION_FIELDS, plain, plain_list, plain_version
from covey.cli.framework.options import json_option, target_options

if TYPE_CHECKING:
    from covey.cli.framework.options import Target


@click.group("round", cls=Group, examples=("covey round list digits", "covey round show digits 3"))
def round_group() -> None:
    """Look at rounds.

    Also works while the coordinator is stopped: its data directory is read.
    """


@round_group.command(
    "list",
    examples=("covey round list digits --data-dir /srv/covey", "covey round list 3f9a01c2d4e5 --json"),
    json_fields=("(a list)", *ROUND_FIELDS),
)
@click.argument("run")
@json_option
@target_options
def list_rounds(run: str, as_json: bool, target: Target) -> None:
    """List the rounds of RUN (its id, or its name if only one run has it)."""
    from covey.cli.framework.offline import reader

    with reader(target) as source:
        rounds = source.rounds(run)
    if as_json:
        print_json(plain_list(rounds, ROUND_FIELDS))
        return
    from covey.cli.views import tables

    tables.show(tables.round_table(rounds))


@round_group.command(
    "show",
    examples=("covey round show digits 3 --data-dir /srv/covey", "covey round show digits 3 --json"),
    json_fields=(
        *ROUND_FIELDS,
        f"updates (a list of: {', '.join(UPDATE_FIELDS)})",
        f"version ({', '.join(VERSION_FIELDS)}; null before the commit)",
    ),
)
@click.argument("run")
@click.argument("number", metavar="N", type=click.IntRange(min=1))
@json_option
@target_options
def show_round(run: str, number: int, as_json: bool, target: Target) -> None:
    """Show round N of RUN: who sent what, whether it was accepted, and why not."""
    from covey.cli.framework.offline import reader

    with reader(target) as source:
        detail = source.round(run, number)
    if as_json:
        version = plain_version(detail.version) if detail.HasField("version") else None
        updates = plain_list(detail.updates, UPDATE_FIELDS)
        print_json({**plain(detail.round, ROUND_FIELDS), "updates": updates, "version": version})
        return
    from covey.cli.views import tables

    tables.show(*tables.round_details(detail))
