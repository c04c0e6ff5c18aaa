"""`covey run evaluate` and `covey run evaluation`: how good a model is on the data of each node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from covey.cli.framework.command import Command, Failure, print_json
from covey.cli.framework.connecting import connected
from covey.cli.framework.fields import RUN_FIELDS, plain
from covey.cli.framework.options import EXISTING_FILE, json_option, target_options

if TYPE_CHECKING:
    from covey.client.connection import Connection
    from covey.client.models.evaluations import Evaluation
    from covey.client.target import Target

NODE_FIELDS = ("node", "verdict", "reason", "examples", "metrics", "alone", "gains", "missing")
EVALUATION_FIELDS = (
    f"run ({', '.join(RUN_FIELDS)})",
    "metric (by which a node gains, or does not)",
    f"nodes (a list of: {', '.join(NODE_FIELDS)})",
    "metrics (of the model, all nodes' together, by examples)",
    "alone (of what nodes trained alone; the same)",
    "gains (the mean over nodes)",
    "gaining (names of nodes)",
    "not_gaining",
    "central (what the coordinator measured)",
)


@click.command(
    "evaluate",
    cls=Command,
    examples=(
        "covey run evaluate digits --wait --data-dir /srv/covey",
        "covey run evaluate digits@best --local-baseline --wait",
        "covey run evaluate model.safetensors --spec digits.toml --nodes anna,berta",
    ),
    json_fields=("without --wait: run, name", *EVALUATION_FIELDS),
)
@click.argument("model", metavar="MODEL|RUN[@VERSION]")
@click.option("--spec", type=EXISTING_FILE, help="The training's specification, with its task [default: RUN's own].")
@click.option("--nodes", default="", metavar="A,B,...", help="Only these nodes [default: all].")
@click.option("--local-baseline", is_flag=True, help="Nodes also train alone, and evaluate that beside it.")
@click.option("--rounds", type=click.IntRange(1), help="Of that training [default: as many as led to RUN's version].")
@click.option("--name", default="", help="Of the new run [default: the specification's, with -evaluation].")
@click.option("--wait", "waiting", is_flag=True, help="Then wait for its end, and show what came of it.")
@json_option
@target_options
def evaluate(
    model: str,
    spec: Path | None,
    nodes: str,
    local_baseline: bool,
    rounds: int | None,
    name: str,
    waiting: bool,
    as_json: bool,
    target: Target,
) -> None:
    """Queue a run in which nodes evaluate a model on their own data, and print its id. Nothing is trained.

    MODEL is a safetensors file, or a run: its newest version, or RUN@7, RUN@best. The run is on record as any other,
    with each node's signed figures; covey run evaluation shows them.

    With --local-baseline each node also trains alone, with the specification's [training], from the model that the seed
    gives; that model never leaves it, but its metrics do.
    """
    from covey.client.models.evaluating import Wanted, evaluation_of

    wanted = Wanted(tuple(filter(None, nodes.split(","))), local_baseline, rounds, name)
    with connected(target) as connection:
        submitted = connection.submit(evaluation_of(connection, model, wanted, spec))
        if not waiting:
            if as_json:
                print_json({"run": submitted.run, "name": submitted.name})
            else:
                click.echo(submitted.run)
            return
        if not as_json:
            click.echo(submitted.run)
        for _ in connection.watch(submitted.run):
            pass
        _show(connection, submitted.run, as_json)


@click.command(
    "evaluation",
    cls=Command,
    examples=(
        "covey run evaluation digits-evaluation --data-dir /srv/covey",
        "covey run evaluation digits-evaluation --json",
    ),
    json_fields=EVALUATION_FIELDS,
)
@click.argument("run")
@json_option
@target_options
def evaluation(run: str, as_json: bool, target: Target) -> None:
    """Show what nodes measured in RUN, which only evaluates, and who took no part, and why.

    Also works while the coordinator is stopped.
    """
    with connected(target) as connection:
        _show(connection, run, as_json)


def _show(connection: Connection, run: str, as_json: bool) -> None:
    """Print it; fails where the run did."""
    from covey.client.models.evaluations import evaluation_in

    shown = evaluation_in(connection, run)
    if as_json:
        print_json(_plain(shown))
    else:
        from covey.cli.views.evaluation import show_evaluation

        show_evaluation(shown)
    if shown.run.state == "failed":
        raise Failure(f"run {shown.run.run} failed: {shown.run.reason}")


def _plain(shown: Evaluation) -> dict[str, object]:
    names = ("metric", "metrics", "alone", "gains", "gaining", "not_gaining", "central")
    return {
        "run": plain(shown.run, RUN_FIELDS),
        "nodes": [plain(node, NODE_FIELDS) for node in shown.nodes],
        **plain(shown, names),
    }
