"""`covey sweep`: try values of a specification, look at what came of it, draw it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from covey.cli.framework.command import Group
from covey.cli.framework.options import (
    EXISTING_FILE,
    EXISTING_FOLDER,
    FILE,
    FOLDER,
    named_paths,
    target_of,
    where_options,
)
from covey.cli.framework.records import Form, list_options, print_records

if TYPE_CHECKING:
    from covey.client.sweeps.running import Make
    from covey.client.sweeps.sweep import Sweep

TRIAL_FIELDS = ("trial", "state", "rounds", "value", "half", "seeds", "params", "why")


@click.group(cls=Group, examples=("covey sweep run lr.toml --nodes 5", "covey sweep show lr.sweep"))
def sweep() -> None:
    """Try values of a specification: a grid, at random, or by TPE."""


@sweep.command(
    examples=(
        "covey sweep run lr.toml --nodes 5",
        "covey sweep run lr.toml --nodes 100 --path images=/srv/mnist --folder ~/lr",
        "covey sweep run lr.toml --data-dir /srv/covey",
    )
)
@click.argument("file", metavar="SWEEP.toml", type=EXISTING_FILE)
@click.option("--folder", type=FOLDER, help="For the record, and simulated runs [default: SWEEP.sweep, here].")
@click.option("--nodes", type=click.IntRange(1, 100_000), help="Simulate the runs, with so many nodes.")
@click.option(
    "--processes", type=click.IntRange(1, 1024), default=1, show_default=True, help="Simulated: that train, a run."
)
@click.option("--path", "paths", multiple=True, metavar="NAME=PATH", help="Simulated: where the nodes' data is.")
@click.option("--device", default="cpu", show_default=True, help="Simulated: what to train on: cpu, cuda or cuda:N.")
@where_options
def run(file: Path, folder: Path | None, **options: Any) -> None:
    """Run SWEEP.toml; one that was interrupted, or killed, goes on where it was.

    With --nodes, runs are simulated here; else a coordinator takes care of them, and they go on while this command does
    not run. Run it again to go on: nothing that was measured is run again.
    """
    from covey.cli.commands.sweep.views import lines, summary
    from covey.cli.views import tables
    from covey.client.sweeps.running import run_sweep
    from covey.client.sweeps.sweep import read_sweep
    from covey.telemetry import configure_logging

    plan = read_sweep(file)
    where = folder if folder is not None else Path(file.with_suffix(".sweep").name)
    make, facts = _trials(plan, where, **options)
    configure_logging("console", "error")
    click.echo(f"the record is in {where}", err=True)
    for warning in plan.warnings:
        click.echo(f"warning: {warning}", err=True)
    results = run_sweep(plan, where, make, facts, lines(plan))
    tables.show(*summary(results))


def _trials(
    plan: Sweep,
    folder: Path,
    *,
    nodes: int | None,
    processes: int,
    paths: tuple[str, ...],
    device: str,
    data_dir: Path | None,
    server: str | None,
    identity: Path | None,
) -> tuple[Make, Mapping[str, Any]]:
    """What runs the runs, and what that depends on."""
    if nodes is None:
        written = (("--path", bool(paths)), ("--processes", processes > 1), ("--device", device != "cpu"))
        given = [name for name, is_written in written if is_written]
        if given:
            raise click.UsageError(f"{given[0]} is of simulated runs: say with how many nodes (--nodes)")
        from covey.client.sweeps.running import at_coordinator

        return at_coordinator(plan, target_of(data_dir, server, identity))
    context = click.get_current_context()
    is_written = context.get_parameter_source("data_dir") is click.core.ParameterSource.COMMANDLINE
    if server is not None or identity is not None or is_written:
        raise click.UsageError(
            "--nodes simulates the runs, and a coordinator has nodes of its own: give one of the two"
        )
    from covey.client.sweeps.crews import Machines
    from covey.client.sweeps.running import simulated

    return simulated(plan, folder, Machines(nodes, processes, named_paths(paths), device))


@sweep.command(
    examples=("covey sweep show lr.sweep", "covey sweep show lr.sweep --csv > lr.csv"),
    json_fields=("(a list, the best first)", *TRIAL_FIELDS),
)
@click.argument("folder", type=EXISTING_FOLDER)
@list_options
def show(folder: Path, form: Form) -> None:
    """Show what came of the sweep in FOLDER, the best trial first; also while it runs.

    A value is the mean over the trial's seeds, with its 95 % interval.
    """
    from covey.client.sweeps.results import read_results

    results = read_results(folder)
    if form:
        from covey.cli.framework.fields import plain_list

        print_records(plain_list(results.trials, TRIAL_FIELDS), form)
        return
    from covey.cli.commands.sweep.views import summary
    from covey.cli.views import tables

    tables.show(*summary(results))


@sweep.command(examples=("covey sweep plot lr.sweep --to lr.png", "covey sweep plot lr.sweep --to lr.svg --best 5"))
@click.argument("folder", type=EXISTING_FOLDER)
@click.option("--to", "path", required=True, type=FILE, help="A .png, .svg or .pdf file; it is replaced.")
@click.option("--best", type=click.IntRange(1), default=10, show_default=True, help="Curves of so many trials.")
def plot(folder: Path, path: Path, best: int) -> None:
    """Draw the sweep in FOLDER: curves of the best trials, with their seeds' interval, and values over parameters.

    Needs matplotlib: pip install 'covey[plot]'.
    """
    from covey.client.sweeps.results import read_results
    from covey.library.plot_sweep import draw_sweep

    panels, _ = draw_sweep(read_results(folder), path, best)
    click.echo(f"{', '.join(panels)}, written to {path}")
