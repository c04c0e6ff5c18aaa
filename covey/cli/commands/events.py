"""`covey events`: what happened to a federation, from its coordinator's record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from covey.cli.framework.command import Command
from covey.cli.framework.connecting import connected
from covey.cli.framework.fields import EVENT_FIELDS, plain_list
from covey.cli.framework.options import target_options
from covey.cli.framework.pages import DEFAULT_PAGE, page_options
from covey.cli.framework.records import Form, list_options, print_records

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
@list_options
@target_options
def events(run: str, node: str, limit: int | None, whole: bool, form: Form, target: Target) -> None:
    """Show recent events, the newest last: joins, refusals, evictions, and what became of runs.

    Also works while the coordinator is stopped.
    """
    with connected(target) as connection:
        events = connection.events(run=run, node=node, limit=None if whole else limit or DEFAULT_PAGE)[::-1]
    if form:
        print_records(plain_list(events, EVENT_FIELDS), form)
        return
    from covey.cli.views import tables

    tables.show(tables.event_lines(events))
