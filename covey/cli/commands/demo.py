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
NODES, GOSSIP_NODES = 4, 3
DEMO_FIELDS = (
    "folder",
    "data_dir",
    "store",
    "first_round_s",
    "seconds",
    f"run ({', '.join(RUN_FIELDS)})",
    "rounds (as `covey round list --json`)",
)
GOSSIP_FIELDS = (
    "folder",
    "nodes",
    "data_dirs",
    "steps",
    "seconds",
    "mass (as `covey gossip audit --json`)",
    "model",
    "model_sha256",
    "spread",
    "metrics",
)


@click.command(
    cls=Command,
    examples=(
        "covey demo",
        "covey demo --nodes 8 --rounds 50 --keep ~/covey-demo",
        "covey demo --gossip",
        "covey demo --json",
    ),
    json_fields=(*DEMO_FIELDS, f"or with --gossip: {', '.join(GOSSIP_FIELDS)}"),
)
@click.option("--gossip", is_flag=True, help="Without a coordinator: nodes exchange models with each other.")
@click.option(
    "--nodes",
    type=click.IntRange(1, MAX_NODES),
    help=f"How many nodes [default: {NODES}, with --gossip {GOSSIP_NODES}].",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="How many rounds; with --gossip, steps of each node.",
)
@click.option("--keep", type=FOLDER, help="The folder for everything [default: a new temporary one].")
@json_option
def demo(gossip: bool, nodes: int | None, rounds: int, keep: Path | None, as_json: bool) -> None:
    """Train on real images, here and now.

    Starts one coordinator and some nodes as processes on this machine. They speak mutually authenticated
    gRPC, as they would between machines. Everything stays in one folder, to look at. With --gossip there is no
    coordinator: nodes train on unlike data, exchange models with each other, and at the end all mass is audited.
    """
    started = time.monotonic()
    if gossip:
        _gossip(_new_folder(keep), nodes or GOSSIP_NODES, rounds, started, as_json=as_json)
    else:
        _rounds(_new_folder(keep), nodes or NODES, rounds, started, as_json=as_json)


def _gossip(folder: Path, nodes: int, steps: int, started: float, *, as_json: bool) -> None:
    click.echo(f"{nodes} nodes start, and no coordinator; everything is in {folder}", err=True)
    from covey.cli.views import demo_gossip
    from covey.telemetry import configure_logging

    configure_logging("console", "error")
    with interrupted_by_signals():
        outcome = demo_gossip.demonstrate(folder, nodes, steps, started, quiet=as_json)
    if as_json:
        print_json(outcome.to_json())
    else:
        demo_gossip.show(outcome, running_program())
    if not outcome.mass.is_exact:
        raise Failure("the accounts do not agree: " + "; ".join(outcome.mass.findings))


def _rounds(folder: Path, nodes: int, rounds: int, started: float, *, as_json: bool) -> None:
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
    from covey.cli.views.demo_outcome import SPEC_FILE

    tables.show(_accuracy_table(outcome))
    name, where = outcome.run.name, f"--data-dir {shlex.quote(str(outcome.data_dir))}"
    covey, folder = running_program(), shlex.quote(str(outcome.folder))
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

To go on, start the coordinator again where the nodes look for it, and the nodes; once it is ready, submit a run:
  {covey} coordinator start {where} --listen {outcome.server} --enrol-listen 127.0.0.1:0 &
  for node in {folder}/nodes/*; do {covey} node start --data-dir "$node" --device cpu & done
  {covey} run submit {folder}/{SPEC_FILE} --watch {where}

To delete all of it: rm -r {folder}"""
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
