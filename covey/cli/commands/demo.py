"""`covey demo`: a whole federation on this machine, from nothing to a trained model, to look at."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from covey.cli.framework.command import Command, Failure, print_json
from covey.cli.framework.fields import RUN_FIELDS
from covey.cli.framework.options import FOLDER, json_option
from covey.cli.framework.processes import interrupted_by_signals

if TYPE_CHECKING:
    from covey.cli.views.demo_outcome import Outcome

MAX_NODES = 32
DEMO_FIELDS = (
    "folder",
    "data_dir",
    "store",
    "first_round_s",
    "seconds",
    f"run ({', '.join(RUN_FIELDS)})",
    "rounds (as `covey round list --json`)",
)


@click.command(
    cls=Command,
    examples=("covey demo", "covey demo --nodes 8 --rounds 50 --keep ~/covey-demo", "covey demo --json"),
    json_fields=DEMO_FIELDS,
)
@click.option("--nodes", type=click.IntRange(1, MAX_NODES), default=4, show_default=True, help="How many nodes.")
@click.option("--rounds", type=click.IntRange(min=1), default=20, show_default=True, help="How many rounds.")
@click.option("--keep", type=FOLDER, help="The folder for everything [default: a new temporary one].")
@json_option
def demo(nodes: int, rounds: int, keep: Path | None, as_json: bool) -> None:
    """Train on real images, here and now.

    Starts one coordinator and some nodes as processes on this machine. They speak mutually authenticated
    gRPC, as they would between machines. Everything stays in one folder, to look at.
    """
    started = time.monotonic()
    folder = _new_folder(keep)
    click.echo(f"a coordinator and {nodes} nodes start; everything is in {folder}", err=True)
    from covey.client.experiments.local_federation import local

    with interrupted_by_signals(), local(nodes, folder=folder) as federation:
        from covey.cli.views.demo_outcome import demonstrate

        outcome = demonstrate(federation, nodes, rounds, started, quiet=as_json)
    if as_json:
        print_json(_fields(outcome))
    else:
        _print(outcome)


def _new_folder(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="covey-demo-"))
    if keep.exists() and any(keep.iterdir()):
        raise Failure(f"{keep} is not empty; name a new folder")
    keep.mkdir(parents=True, exist_ok=True)
    return keep.absolute()


def _fields(outcome: Outcome) -> dict[str, Any]:
    from covey.cli.framework.fields import ROUND_FIELDS, plain, plain_list

    return {
        "folder": str(outcome.folder),
        "data_dir": str(outcome.data_dir),
        "store": str(outcome.store),
        "first_round_s": round(outcome.first_round_s, 3),
        "seconds": round(outcome.seconds, 3),
        "run": plain(outcome.run, RUN_FIELDS),
        "rounds": plain_list(outcome.rounds, ROUND_FIELDS),
    }


def _print(outcome: Outcome) -> None:
    from covey.cli.views import tables

    tables.show(_accuracy_table(outcome))
    name, where = outcome.run.name, f"--data-dir {shlex.quote(str(outcome.data_dir))}"
    covey = running_program()
    click.echo(
        f"""\
{len(outcome.rounds)} rounds in {outcome.seconds:.1f} s, the first after {outcome.first_round_s:.1f} s.

Store:   {outcome.store}
Logs:    {outcome.folder / "logs"}

The daemons have ended; their record can be read:
  {covey} run show {name} {where}
  {covey} round list {name} {where}
  {covey} round show {name} 1 {where}
  {covey} node list {where}
  {covey} run audit {name} {where}
  {covey} run export {name} --to {name}.safetensors {where}

To go on, start the coordinator again:
  {covey} coordinator start {where}

To delete all of it: rm -r {shlex.quote(str(outcome.folder))}"""
    )


def running_program() -> str:
    """What to type in a shell for the program that runs now: its path, where `covey` alone is not found."""
    if shutil.which("covey"):
        return "covey"
    path = os.path.abspath(sys.argv[0])
    if os.path.basename(path) == "covey" and os.access(path, os.X_OK):
        return shlex.quote(path)
    return f"{shlex.quote(sys.executable)} -m covey.cli.main"


def _accuracy_table(outcome: Outcome) -> Any:
    from covey.cli.views import tables

    rounds = tables.table([">ROUND", ">ACCURACY", ">LOSS", ">TIME"])
    for item in outcome.rounds:
        values = (tables.number(item.metrics.get(name)) for name in ("accuracy", "loss"))
        rounds.add_row(str(item.round), *values, tables.span(item.seconds))
    return rounds
