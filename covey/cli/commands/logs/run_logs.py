"""`covey run logs`: what happened to a run, and on one of its nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from covey.cli.commands.logs.site_log import SITE_FIELDS, show_site_log
from covey.cli.framework.command import Command
from covey.cli.framework.connecting import connected
from covey.cli.framework.fields import plain_list
from covey.cli.framework.options import target_options
from covey.cli.framework.pages import DEFAULT_PAGE, page_options
from covey.cli.framework.records import Form, list_options, print_records

if TYPE_CHECKING:
    from covey.client.target import Target

LOG_FIELDS = ("at", "what", "round", "node", "text")


@click.command(
    cls=Command,
    examples=(
        "covey run logs digits --data-dir /srv/covey",
        "covey run logs digits --limit 5",
        "covey run logs digits --json",
        "covey run logs digits --node clinic-a --follow",
    ),
    json_fields=("(a list)", *LOG_FIELDS, "(with --node an object a line)", *SITE_FIELDS),
)
@click.argument("run")
@click.option("--node", help="Instead what this node shares of its own log.")
@click.option("--follow", is_flag=True, help="With --node: go on until the run has ended.")
@page_options("rounds")
@list_options
@target_options
def logs(run: str, node: str | None, follow: bool, limit: int | None, whole: bool, form: Form, target: Target) -> None:
    """Show what happened to RUN, the newest last: its events, its newest rounds, and why nodes contributed nothing.

    With --node: the traceback of what failed on that node, and what it printed, as far as its operator shares it
    ([policy] share_logs in its node.toml). Also works while the coordinator is stopped.
    """
    if node is not None:
        show_site_log(run, node, follow=follow, limit=limit, whole=whole, form=form, target=target)
        return
    if follow:
        raise click.UsageError("--follow goes with --node: say whose log")
    with connected(target) as connection:
        lines = connection.run_log(run, rounds=None if whole else limit or DEFAULT_PAGE)
    if form:
        print_records(plain_list(lines, LOG_FIELDS), form)
        return
    from covey.cli.views import tables

    tables.show(tables.log_lines(lines))
