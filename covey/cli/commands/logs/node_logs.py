"""`covey node logs`: a node's own log, for its operator, on its machine and without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from covey.cli.framework.command import Command, print_json_line
from covey.cli.framework.fields import plain, plain_list
from covey.cli.framework.options import FOLDER
from covey.cli.framework.pages import DEFAULT_PAGE, page_options
from covey.cli.framework.records import Form, list_options, print_records

if TYPE_CHECKING:
    from covey.node.site_log.reading import LocalLine

LOCAL_FIELDS = ("at", "level", "run", "round", "kind", "text")


@click.command(
    "logs",
    cls=Command,
    examples=(
        "covey node logs --data-dir /srv/node",
        "covey node logs --data-dir /srv/node --run digits --follow",
        "covey node logs --data-dir /srv/node --level warning --json",
    ),
    json_fields=("(a list)", *LOCAL_FIELDS, "(with --follow an object a line)"),
)
@click.option("--data-dir", type=FOLDER, required=True, help="This node's own folder.")
@click.option("--run", default="", metavar="RUN", help="Only what is about this run: its name, or its id.")
@click.option("--follow", is_flag=True, help="Go on with what is new, until Ctrl-C.")
@click.option(
    "--level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="debug",
    show_default=True,
    help="The least important lines to show.",
)
@page_options("lines")
@list_options
def node_logs(data_dir: Path, run: str, follow: bool, level: str, limit: int | None, whole: bool, form: Form) -> None:
    """Show this node's own log, the newest last: of the daemon, and of the worker that runs the tasks' code.

    It is read from the node's data directory, also while the node is stopped, and without a network. What the
    coordinator gets of it is another thing: [policy] share_logs in node.toml, and covey run logs RUN --node NODE.
    """
    from covey.node.site_log.reading import LocalLogs, chosen

    if follow and form == "csv":
        raise click.UsageError("--follow shows lines as they come, without --csv")
    with LocalLogs(data_dir) as logs:
        lines = logs.lines()
        is_wanted = chosen(lines, run, level)
        wanted = list(filter(is_wanted, lines))
        shown = wanted if whole else wanted[-(limit or DEFAULT_PAGE) :]
        if form and not follow:
            print_records(plain_list(shown, LOCAL_FIELDS), form)
            return
        _show(shown, form, is_about_one=bool(run))
        if len(shown) < len(wanted):
            click.echo(f"the newest {len(shown)} of {len(wanted)} lines; see all of them with --all", err=True)
        if follow:
            for line in filter(is_wanted, logs.followed()):
                _show([line], form, is_about_one=bool(run))


def _show(lines: list[LocalLine], form: Form, *, is_about_one: bool) -> None:
    if form:
        for line in lines:
            print_json_line(plain(line, LOCAL_FIELDS))
        return
    if lines:
        from covey.cli.views import tables

        tables.show(tables.local_lines(lines, is_about_one=is_about_one))
