"""`covey gossip export`: the consensus model of a run's nodes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from covey.cli.framework.command import Command, print_json
from covey.cli.framework.options import FILE, json_option, named_paths

if TYPE_CHECKING:
    from covey.client.gossip_consensus import Consensus

EXPORT_FIELDS = (
    "file",
    "run",
    "model_sha256",
    "weighs (mass: the mean is weighted by it; receiver: all count alike)",
    "weight (mass of all of them)",
    "spread (the largest distance from the mean)",
    "metrics (with --evaluate)",
    "missing (why metrics are missing)",
    "nodes (a list: node, weight, distance, steps, metrics)",
)


@click.command(
    cls=Command,
    examples=(
        "covey gossip export /srv/a --out a.safetensors",
        "covey gossip export /srv/a /srv/b /srv/c --out mean.safetensors --evaluate",
        "covey gossip export /srv/a /srv/b /srv/c --out step-20.safetensors --step 20 --json",
    ),
    json_fields=EXPORT_FIELDS,
)
@click.argument("nodes", metavar="DATA_DIR...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=FILE, required=True, help="The file to write (safetensors).")
@click.option("--run", help="The run's name (its id, through a coordinator), where a node has several.")
@click.option(
    "--step",
    type=click.IntRange(min=0),
    help="Models as they were published in this step, where the nodes keep them [default: each one's newest].",
)
@click.option("--evaluate", is_flag=True, help="Evaluate it, and each node's model, on the task's central data.")
@click.option("--path", "paths", multiple=True, metavar="NAME=PATH", help="Where the task finds those data.")
@json_option
def export(
    nodes: tuple[Path, ...],
    out: Path,
    run: str | None,
    step: int | None,
    evaluate: bool,
    paths: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write the consensus model: the mean of nodes' models, and how far each is from it.

    Nodes count by their mass; in protocols in which receivers weigh, all count alike. Models are read from the data
    directories that are given. One is enough where nodes agree closely; of several the spread says how closely. A node
    keeps its newest model, those of every so many steps where the run says so (`keep_every` in [gossip]), and those of
    other steps only until all its peers have them. Where nodes keep models of their own (protocol "codistill"),
    name one directory: its node's model is written.
    """
    from covey.client.gossip_consensus import export_consensus
    from covey.telemetry import configure_logging

    configure_logging("console", "error")
    consensus = export_consensus(list(nodes), out, run, evaluated=evaluate, step=step, paths=named_paths(paths))
    if as_json:
        print_json(_fields(consensus, out))
    else:
        _print(consensus, out, evaluated=evaluate)


def _fields(consensus: Consensus, out: Path) -> dict[str, Any]:
    names = ("run", "model_sha256", "weighs", "weight", "spread", "metrics", "missing")
    rows = [
        {"node": n.node, "weight": n.weight, "distance": n.distance, "steps": n.steps, "metrics": dict(n.metrics)}
        for n in consensus.nodes
    ]
    return {"file": str(out), **{name: getattr(consensus, name) for name in names}, "nodes": rows}


def _print(consensus: Consensus, out: Path, *, evaluated: bool) -> None:
    from covey.cli.views import gossip_tables, tables

    weighted = ", weighted by their mass" if consensus.weighs == "mass" and len(consensus.nodes) > 1 else ""
    plural = "s" if len(consensus.nodes) > 1 else ""
    click.echo(f"{shlex.quote(str(out))}: the mean of {len(consensus.nodes)} model{plural}{weighted}")
    click.echo(f"sha256 {consensus.model_sha256}")
    click.echo(f"spread: at most {consensus.spread:.6f} from the mean")
    tables.show(*gossip_tables.consensus(consensus))
    for name, reason in sorted(consensus.missing.items()):
        click.echo(f"no {name}: {reason}")
    if evaluated and not consensus.metrics and not consensus.missing:
        click.echo("not evaluated: the task has no central data here (--path NAME=PATH says where they are)")
