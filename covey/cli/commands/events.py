"""`covey events`: what happened to a federation, from its coordinator's record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from covey.cli.framework.command import Command, print_json
from covey.cli.framework.connecting import connected
from covey.cli.framework.fields import EVENT_FIELDS, plain_list
from covey.cli.framework.options import json_option, target_options
from covey.cli.framework.pages import DEFAULT_PAGE, page_options

if TYPE_CHECKING:
    from covey.client.target import Target


@click.command(
    cls=Command,
    examples=(
        "covey events --data-dir /srv/covey",
        "covey events --run digits --limit 20",
        "covey events --node clinic-a --all --json",
    ),
    json_fields=("(a list)", *EVENT_FIELDS),
)
@click.option("--run", default="", help="Only of this run (its id, or the newest of this name).")
@click.option("--node", default="", help="Only of this node, or admin.")
@page_options("events")
@json_option
@target_options
def events(run: str, node: str, limit: int | None, whole: bool, as_json: bool, target: Target) -> None:
    """Show recent events, the newest last: joins, refusals, evictions, and what became of runs.

    Also works while the coordinator is stopped.
    """
    with connected(target) as connection:
        events = connection.events(run=run, node=node, limit=None if whole else limit or DEFAULT_PAGE)[::-1]
    if as_json:
        print_json(plain_list(events, EVENT_FIELDS))
        return
    from covey.cli.views import tables

    tables.show(tables.event_lines(events))
