"""`covey run track`: a run's curves in TensorBoard, MLflow, Weights & Biases, CSV or Parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from covey.cli.framework.command import Command, print_json
from covey.cli.framework.connecting import connected
from covey.cli.framework.options import json_option, option_of, target_options

if TYPE_CHECKING:
    from covey.client.errors import Unreachable
    from covey.client.target import Target

TRACKED_FIELDS = ("run", "state", "to", "points (how many were told now)")


@click.command(
    cls=Command,
    examples=(
        "covey run track digits --to csv:curves --data-dir /srv/covey",
        "covey run track digits --to tensorboard:logs --follow",
        "covey run track digits --to mlflow:http://127.0.0.1:5000 --option experiment=digits --model",
        "covey run track digits --to wandb:offline --option project=digits",
    ),
    json_fields=TRACKED_FIELDS,
)
@click.argument("run")
@click.option("--to", required=True, metavar="TRACKER:WHERE", help="A tracker, and a folder or address.")
@click.option("--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("--model", is_flag=True, help="Also the newest model, when the run has ended.")
@click.option("--nodes/--no-nodes", default=True, show_default=True, help="What each node measured.")
@click.option("--option", "given", multiple=True, metavar="KEY=VALUE", help="Of the tracker; repeatable.")
@json_option
@target_options
def track(
    run: str, to: str, follow: bool, model: bool, nodes: bool, given: tuple[str, ...], as_json: bool, target: Target
) -> None:
    """Tell a tracker the curves of RUN: live with --follow, or later from the record, with the same outcome.

    Metrics, verdicts, bytes, seconds and spent privacy by round, what each node measured, and the specification; of
    gossip runs each node's steps. Given again it goes on where it was, and doubles nothing. Also works while the
    coordinator is stopped.
    """
    from covey.library.tracking import track as track_run

    with connected(target) as connection:
        options = dict(map(option_of, given))
        done = track_run(connection, run, to, options, follow=follow, nodes=nodes, model=model, on_lost=_say_lost)
    if as_json:
        print_json({"run": done.run.run, "state": done.run.state, "to": to, "points": done.points})
    else:
        click.echo(f"{done.points} points of run {done.run.run} ({done.run.state}) told to {to}")


def _say_lost(error: Unreachable) -> None:
    click.echo(f"waiting for the coordinator: {error}", err=True)
