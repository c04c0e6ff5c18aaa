"""`covey run logs RUN --node NODE`: what a node shares of its own log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from covey.cli.framework.command import print_json_line
from covey.cli.framework.connecting import connected
from covey.cli.framework.fields import plain, plain_list
from covey.cli.framework.pages import DEFAULT_PAGE
from covey.cli.framework.records import Form, print_records

if TYPE_CHECKING:
    from covey.client.connection import Connection
    from covey.client.reading.site_log import SiteLog
    from covey.client.target import Target

SITE_FIELDS = ("node", "number", "at", "round", "kind", "text")


def show_site_log(
    run: str, node: str, *, follow: bool, limit: int | None, whole: bool, form: Form, target: Target
) -> None:
    """Show a node's log of a run: the newest lines, or with `follow` all of them as they come."""
    if follow and (limit is not None or form == "csv"):
        raise click.UsageError("--follow shows all lines as they come, without --limit or --csv")
    most = None if whole or follow else limit or DEFAULT_PAGE
    with connected(target) as connection:
        if form and not follow:
            print_records(
                plain_list(connection.site_log(run, node).lines[-most if most else None :], SITE_FIELDS), form
            )
            return
        for log in _logs(connection, run, node, follow=follow):
            if form:
                for line in log.lines:
                    print_json_line(plain(line, SITE_FIELDS))
            else:
                _show(log, most)


def _logs(connection: Connection, run: str, node: str, *, follow: bool) -> Iterator[SiteLog]:
    from covey.client.reading.site_log import followed

    if not follow:
        return iter([connection.site_log(run, node)])
    return followed(lambda after: connection.site_log(run, node, after=after), lambda: connection.run(run).ended)


def _show(log: SiteLog, most: int | None) -> None:
    from covey.cli.views import tables

    lines = log.lines[-most if most else None :]
    if lines:
        tables.show(tables.site_lines(lines))
    if len(lines) < len(log.lines):
        click.echo(f"the newest {len(lines)} of {len(log.lines)} lines; see all of them with --all", err=True)
    if not log.lines and log.explanation:
        click.echo(log.explanation, err=True)
