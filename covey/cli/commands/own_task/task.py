"""`covey task`: what a task's author asks before anybody runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click

from covey.cli.framework.command import Group
from covey.cli.framework.options import EXISTING_FILE, json_option, named_paths, option_of

ROUND_STEPS = 5
"""Local steps of the round, where no specification says how long it trains."""


@click.group(cls=Group, examples=("covey task check my_tasks:Tumours --data table=tumours.csv",))
def task() -> None:
    """Try a task before anybody runs it."""


@task.command(
    examples=(
        "covey task check my_tasks:Tumours --data table=tumours.csv",
        "covey task check digits --option hidden=64",
        "covey task check --spec run.toml --data table=tumours.csv --json",
    ),
    json_fields=("(a list)", "what", "ok", "text"),
)
@click.argument("name", required=False)
@click.option("--data", "paths", multiple=True, metavar="NAME=PATH", help="Where it finds a node's data; repeatable.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="One of its [task.options]; repeatable.")
@click.option("--spec", type=EXISTING_FILE, help="A run specification, instead of NAME.")
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    name: str | None,
    paths: tuple[str, ...],
    options: tuple[str, ...],
    spec: Path | None,
    as_json: bool,
) -> None:
    """Take the task NAME all the way in one process: model, one batch, one round, one evaluation.

    NAME is an installed task, or package.module:Class from here. There are no daemons, and what the task's code raises
    is shown as Python shows it. Exit code 1 if anything fails.
    """
    question = {"spec": _spec(name, options, spec), "paths": named_paths(paths, "--data"), "json": as_json}
    command = [sys.executable, "-P", "-m", "covey.testing.rehearsal", json.dumps(question)]
    ctx.exit(subprocess.run(command, check=False).returncode)


def _spec(name: str | None, options: tuple[str, ...], spec: Path | None) -> str:
    from covey.client.specification import parsed
    from covey.spec import parse_data

    if (name is None) == (spec is None):
        raise click.UsageError("name the task, or give --spec with a specification that does")
    if spec is not None:
        if options:
            raise click.UsageError("--option goes with NAME; a specification has its own [task.options]")
        return parsed(spec).to_json()
    fields = {"name": name, "options": dict(map(option_of, options))}
    return parse_data({"name": "check", "task": fields, "training": {"local_steps": ROUND_STEPS}}).to_json()
