"""`covey study`: groups of runs with nodes and people of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from covey.cli.framework.command import Group, print_json
from covey.cli.framework.connecting import connected
from covey.cli.framework.fields import plain, plain_list
from covey.cli.framework.options import json_option, target_options
from covey.cli.framework.records import Form, list_options, print_records

if TYPE_CHECKING:
    from covey.client.target import Target
    from covey.client.values import Study

STUDY_FIELDS = ("name", "nodes", "admins", "members", "auditors", "max_runs", "evicted")
MAX_RUNS = click.IntRange(1, 16)


def names_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Who takes part."""
    for option, text in (
        ("--auditor", "Looks at its runs."),
        ("--member", "Submits its runs, and looks at them."),
        ("--admin", "Stops and deletes them, and shuts nodes out, too."),
        ("--node", "Works for its runs; '*': all nodes do."),
    ):
        function = click.option(option, f"{option[2:]}s", multiple=True, metavar="NAME", help=text)(function)
    return function


@click.group(
    cls=Group,
    examples=(
        "covey study create brain --node hospital-a --node hospital-b --admin alice --data-dir /srv/covey",
        "covey study list --data-dir /srv/covey",
    ),
)
def study() -> None:
    """Groups of runs with nodes and people of their own.

    They are in studies.toml in the coordinator's data directory. What these commands change there counts at once, and
    is on record; the file may be edited by hand, too.
    """


@study.command("list", examples=("covey study list --data-dir /srv/covey",), json_fields=("(a list)", *STUDY_FIELDS))
@list_options
@target_options
def list_studies(form: Form, target: Target) -> None:
    """List studies, with how many nodes and people each has."""
    with connected(target) as connection:
        studies = connection.studies.all()
    if form:
        print_records(plain_list(studies, STUDY_FIELDS), form)
        return
    from covey.cli.views import tables

    tables.show(tables.study_table(studies))


@study.command(examples=("covey study show brain --data-dir /srv/covey",), json_fields=STUDY_FIELDS)
@click.argument("name", metavar="STUDY")
@json_option
@target_options
def show(name: str, as_json: bool, target: Target) -> None:
    """Show one STUDY: its nodes, its people, and who was shut out of it."""
    with connected(target) as connection:
        shown = connection.studies.named(name)
    _show(shown, as_json)


@study.command(
    examples=("covey study create brain --node hospital-a --node hospital-b --admin alice --member bob --max-runs 2",),
    json_fields=STUDY_FIELDS,
)
@click.argument("name", metavar="STUDY")
@names_options
@click.option("--max-runs", type=MAX_RUNS, help="How many of its runs at once [default: as many as the coordinator].")
@json_option
@target_options
def create(name: str, max_runs: int | None, as_json: bool, target: Target, **names: tuple[str, ...]) -> None:
    """Make a STUDY, of these nodes and people; a run belongs to it that says study = "STUDY"."""
    if not names["nodes"]:
        raise click.UsageError("name the nodes that work for its runs with --node, or --node '*' for all")
    with connected(target) as connection:
        created = connection.studies.create(name, max_runs=max_runs, **names)
    _show(created, as_json)


@study.command(
    examples=("covey study add brain --node hospital-c --member dave", "covey study add brain --max-runs 2"),
    json_fields=STUDY_FIELDS,
)
@click.argument("name", metavar="STUDY")
@names_options
@click.option("--max-runs", type=MAX_RUNS, help="From now on so many of its runs at once.")
@json_option
@target_options
def add(name: str, max_runs: int | None, as_json: bool, target: Target, **names: tuple[str, ...]) -> None:
    """Add nodes and people to STUDY; who has another role in it has the new one instead.

    Nodes work for the runs that begin from then on.
    """
    if not any(names.values()) and max_runs is None:
        raise click.UsageError("say whom, with --node, --admin, --member or --auditor, or give --max-runs")
    with connected(target) as connection:
        changed = connection.studies.add(name, max_runs=max_runs, **names)
    _show(changed, as_json)


@study.command(
    examples=(
        "covey study remove brain --person dave --node hospital-c",
        "covey study remove brain --max-runs",
        "covey study remove brain --whole",
    ),
    json_fields=STUDY_FIELDS,
)
@click.argument("name", metavar="STUDY")
@click.option("--node", "nodes", multiple=True, metavar="NAME", help="Works for it no more.")
@click.option("--person", "people", multiple=True, metavar="NAME", help="Has no role in it any more.")
@click.option("--max-runs", is_flag=True, help="It has no limit of its own any more.")
@click.option("--whole", is_flag=True, help="The study itself, once all its runs have ended.")
@json_option
@target_options
def remove(
    name: str, nodes: tuple[str, ...], people: tuple[str, ...], max_runs: bool, whole: bool, as_json: bool,
    target: Target,
) -> None:  # fmt: skip
    """Take nodes and people out of STUDY, or the whole STUDY away.

    A node goes on with the runs that have begun; covey node evict NODE --study STUDY ends that too.
    """
    if whole == bool(nodes or people or max_runs):
        raise click.UsageError("say what: --node, --person or --max-runs; or --whole, alone")
    with connected(target) as connection:
        left = connection.studies.remove(name, nodes=nodes, people=people, max_runs=max_runs, whole=whole)
    if whole and not as_json:
        click.echo(f"there is no study {name} any more")
    else:
        _show(left, as_json)


def _show(study: Study, as_json: bool) -> None:
    if as_json:
        print_json(plain(study, STUDY_FIELDS))
        return
    from covey.cli.views import tables

    tables.show(tables.study_facts(study))
