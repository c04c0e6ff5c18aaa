"""`covey round`: the rounds of a run, and one round's updates with their verdicts and reasons."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from covey.cli.framework.command import Group, print_json
from covey.cli.framework.connecting import connected
from covey.cli.framework.fields import PROGRESS_FIELDS, ROUND_FIELDS, UPDATE_FIELDS, VERSION_FIELDS, plain, plain_list
from covey.cli.framework.options import target_options
from covey.cli.framework.pages import DEFAULT_PAGE, note_more, page_options
from covey.cli.framework.records import Form, list_options, print_records
from covey.errors import NotFound

if TYPE_CHECKING:
    from covey.client.connection import Connection
    from covey.client.target import Target
    from covey.client.values import Round


@click.group("round", cls=Group, examples=("covey round list digits", "covey round show digits 3"))
def round_group() -> None:
    """Look at rounds.

    Also works while the coordinator is stopped: its data directory is read.
    """


@round_group.command(
    "list",
    examples=(
        "covey round list digits --data-dir /srv/covey",
        "covey round list 3f9a01c2d4e5 --json --all",
        "covey round list digits --after 200 --limit 50",
    ),
    json_fields=("(a list)", *ROUND_FIELDS),
)
@click.argument("run")
@click.option("--after", type=click.IntRange(min=0), help="Only rounds after this number, the first ones of them.")
@page_options("rounds")
@list_options
@target_options
def list_rounds(run: str, after: int | None, limit: int | None, whole: bool, form: Form, target: Target) -> None:
    """List the newest rounds of RUN (its id, or its name: the newest run of that name)."""
    with connected(target) as connection:
        _refuse_steps(connection, run)
        rounds, note = _page(connection, run, after, None if whole else limit or DEFAULT_PAGE)
    if form:
        print_records(plain_list(rounds, ROUND_FIELDS), form)
    else:
        from covey.cli.views import tables

        tables.show(tables.round_table(rounds))
    if note is not None:
        note_more(*note)


def _refuse_steps(connection: Connection, run: str) -> None:
    """Raises NotFound where a run has no rounds, with the command for what it has."""
    shown = connection.run(run)
    if not shown.is_coordinated:
        raise NotFound(
            f"run {shown.run} is of mode {shown.mode!r}: its nodes make steps, and there are no rounds. "
            f"See covey run steps {shown.run}, and covey run show {shown.run}"
        )


def _page(
    connection: Connection, run: str, after: int | None, limit: int | None
) -> tuple[list[Round], tuple[str, str] | None]:
    """The rounds to show, and what to say of the rest: which ones are shown, and how others are; None: no rest."""
    if limit is None:
        return connection.rounds(run, after=after or 0), None
    rounds = connection.rounds(run, after=after or 0, limit=limit + 1, newest=after is None)
    if len(rounds) <= limit:
        return rounds, None
    if after is None:
        shown = "the newest round is shown" if limit == 1 else f"the newest {limit} rounds are shown"
        return rounds[1:], (shown, "--after 0 from the first one")
    return rounds[:limit], (f"rounds after {after} are shown", f"--after {rounds[limit - 1].round}")


class RoundNumber(click.ParamType[Any]):
    """The number of a round, from 1, or `newest` (None)."""

    name = "round"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Check a round's number."""
        if value == "newest":
            return None
        if not re.fullmatch(r"\d{1,9}", str(value)) or int(value) == 0:
            self.fail(f"{value!r} is not a round; write its number, from 1, or `newest`", param, ctx)
        return int(value)


def _newest(connection: Connection, run: str) -> int:
    newest = connection.rounds(run, limit=1, newest=True)
    if not newest:
        raise NotFound(f"run {connection.run(run).run} has no round yet")
    return newest[0].round


@round_group.command(
    "show",
    examples=("covey round show digits 3 --data-dir /srv/covey", "covey round show digits --json"),
    json_fields=(
        *ROUND_FIELDS,
        f"updates (a list of: {', '.join(UPDATE_FIELDS)})",
        f"version ({', '.join(VERSION_FIELDS)}; null before the commit)",
        f"nodes (of an open round; a list of: {', '.join(PROGRESS_FIELDS)})",
        "capped (the share of the examples, by node, of those that weights.max_share bounds)",
        "bytes_resent_up, bytes_resent_down (what went twice because transfers broke)",
        "nodes_count (how many nodes an open round has; of more than 100, `nodes` has those that changed last)",
    ),
)
@click.argument("run")
@click.argument("number", metavar="[N]", type=RoundNumber(), default="newest")
@list_options
@target_options
def show_round(run: str, number: int | None, form: Form, target: Target) -> None:
    """Show round N of RUN (the newest, where none is named).

    Who sent what, whether it was accepted, and why not; of an open round also who does what. With --csv: the updates.
    """
    with connected(target) as connection:
        _refuse_steps(connection, run)
        detail = connection.round(run, number or _newest(connection, run))
    updates = plain_list(detail.updates, UPDATE_FIELDS)
    if form == "csv":
        print_records(updates, form)
        return
    if form == "json":
        version = plain(detail.version, VERSION_FIELDS) if detail.version is not None else None
        nodes = plain_list(detail.nodes, PROGRESS_FIELDS)
        beside = {"updates": updates, "version": version, "nodes": nodes, "capped": dict(detail.capped)}
        twice = {"bytes_resent_up": detail.bytes_resent_up, "bytes_resent_down": detail.bytes_resent_down}
        count = {"nodes_count": detail.nodes_count}
        print_json({**plain(detail.round, ROUND_FIELDS), **beside, **twice, **count})
        return
    from covey.cli.views import tables

    tables.show(*tables.round_details(detail))
