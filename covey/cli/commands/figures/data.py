"""`covey data`: what a node's operator knows of the node's own data, and what would leave it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from covey.cli.framework.command import Failure, Group, print_json
from covey.cli.framework.options import EXISTING_FILE, FOLDER, json_option, named_paths, option_of
from covey.figures import DEFAULT_BINS

REPORT_FIELDS = (
    "task",
    "examples",
    "columns (a list of: column, kind, count, missing, different, least, largest, mean, std, quantiles, range, cells)",
    "labels (how many examples of each; null: the task names none)",
    "shared (with --shared: min_k, examples, columns, labels; null: hidden)",
    "drift (with --against; a list of: column, psi, why)",
)


@click.group(cls=Group, examples=("covey data report --task digits",))
def data() -> None:
    """Look at a node's own data. Nothing leaves this machine."""


@data.command(
    examples=(
        "covey data report --task digits",
        "covey data report --data-dir /srv/node --task tumours --json > monday.json",
        "covey data report --data-dir /srv/node --task tumours --against monday.json",
        "covey data report --data-dir /srv/node --task tumours --shared",
    ),
    json_fields=REPORT_FIELDS,
)
@click.option("--task", "name", required=True, help="An installed task, or package.module:Class from here.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="One of its [task.options]; repeatable.")
@click.option("--data-dir", type=FOLDER, help="The node's data directory: its node.toml says where the data are.")
@click.option("--data", "paths", multiple=True, metavar="NAME=PATH", help="Where the task finds data; repeatable.")
@click.option("--bins", type=click.IntRange(2, 1024), default=DEFAULT_BINS, show_default=True, help="Of histograms.")
@click.option("--shared", is_flag=True, help="Show what a run of method statistics would get, and what is hidden.")
@click.option("--min-k", type=click.IntRange(1), help="With --shared: the run's; the larger one of it and node.toml's.")
@click.option("--against", type=EXISTING_FILE, help="An earlier report (--json): how far the data are from it.")
@json_option
def report(
    name: str,
    options: tuple[str, ...],
    data_dir: Path | None,
    paths: tuple[str, ...],
    bins: int,
    shared: bool,
    min_k: int | None,
    against: Path | None,
    as_json: bool,
) -> None:
    """Report on the training data that the task finds here: columns, ranges, missing values, labels.

    The report is whole: it is for the node's operator. What would be shared is in it with --shared. The columns are
    those of the task's `table`.
    """
    from covey.cli.commands.figures.report_tables import report_tables
    from covey.cli.views.listing import show
    from covey.node.operator.config import SETTINGS_FILE, NodeSettings, read_settings

    if min_k is not None and not shared:
        raise click.UsageError("--min-k says what would be shared: give --shared as well")
    if data_dir is not None and not data_dir.is_dir():
        raise Failure(f"there is no folder {data_dir}; name the node's data directory")
    settings = NodeSettings() if data_dir is None else read_settings(data_dir / SETTINGS_FILE)
    question: dict[str, Any] = {
        "task": {"name": name, "options": dict(map(option_of, options))},
        "paths": {**settings.data.paths, **named_paths(paths)},
        "options": settings.data.options,
        "bins": bins,
        "min_k": max(min_k or 0, settings.policy.min_k) if settings.policy.min_k or data_dir is None else 0,
        "shared": shared,
        "against": None if against is None else str(against),
    }
    command = [sys.executable, "-P", "-m", "covey.methods.statistics.data_report"]
    done = subprocess.run(command, input=json.dumps(question).encode(), stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise click.exceptions.Exit(done.returncode)
    answer = json.loads(done.stdout)
    if as_json:
        print_json(answer)
    else:
        show(*report_tables(answer))
