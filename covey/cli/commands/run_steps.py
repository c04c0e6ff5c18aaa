"""`covey run steps`: the steps of a gossip run's nodes, as they stated them to the coordinator."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from covey.cli.framework.command import Command
from covey.cli.framework.connecting import connected
from covey.cli.framework.fields import plain_list
from covey.cli.framework.options import target_options
from covey.cli.framework.records import Form, list_options, print_records
from covey.errors import NotFound

if TYPE_CHECKING:
    from covey.client.target import Target

STEP_FIELDS = ("node", "incarnation", "step", "at", "weight", "trained_s", "blocked_s", "metrics")


@click.command(
    cls=Command,
    examples=(
        "covey run steps digits-gossip --data-dir /srv/covey",
        "covey run steps digits-gossip --node clinic-a --all --csv > curves.csv",
    ),
    json_fields=("(a list, by node)", *STEP_FIELDS),
)
@click.argument("run")
@click.option("--node", default="", help="Only this node's.")
@click.option("--last", type=click.IntRange(1), default=5, show_default=True, help="The newest so many of each node.")
@click.option("--all", "whole", is_flag=True, help="All of them.")
@list_options
@target_options
def steps(run: str, node: str, last: int, whole: bool, form: Form, target: Target) -> None:
    """Show the steps of each node of the gossip run RUN: its mass, what its training measured, how its time went.

    They are as nodes stated them, at most every few seconds; covey run plot draws them. Also works while the
    coordinator is stopped.
    """
    with connected(target) as connection:
        shown = connection.run(run)
        if shown.is_coordinated:
            raise NotFound(f"run {shown.run} is of mode {shown.mode!r}, which has rounds: covey round list {shown.run}")
        known = connection.gossip_steps(shown)
    nodes = [list(group) for name, group in groupby(known, lambda step: step.node) if node in ("", name)]
    if node and not nodes:
        names = ", ".join(sorted({step.node for step in known})) or "nobody"
        raise NotFound(f"{node!r} stated no step of run {shown.run}; who did: {names}")
    rows: list[Any] = [step for group in nodes for step in (group if whole else group[-last:])]
    if form:
        print_records(plain_list(rows, STEP_FIELDS), form)
        return
    from covey.cli.views import gossip_tables, tables

    tables.show(*gossip_tables.steps(rows))
