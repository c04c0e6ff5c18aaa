"""`covey run plot`: curves of runs as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from covey.cli.framework.command import Command
from covey.cli.framework.connecting import connected
from covey.cli.framework.options import FILE, target_options

if TYPE_CHECKING:
    from covey.client.target import Target


@click.command(
    cls=Command,
    examples=(
        "covey run plot digits --to digits.png --data-dir /srv/covey",
        "covey run plot digits-a digits-b --to both.svg --metric accuracy --over bytes",
    ),
)
@click.argument("runs", nargs=-1, required=True)
@click.option("--to", "path", required=True, type=FILE, help="A .png, .svg or .pdf file; it is replaced.")
@click.option("--metric", "metrics", multiple=True, help="Which one; repeatable [default: accuracy and loss].")
@click.option("--over", type=click.Choice(["rounds", "seconds", "bytes"]), default="rounds", show_default=True)
@target_options
def plot(runs: tuple[str, ...], path: Path, metrics: tuple[str, ...], over: Any, target: Target) -> None:
    """Draw RUNS beside each other: metrics, bytes, and verdicts by node; of gossip runs each node's metrics and mass.

    Needs matplotlib: pip install 'covey[plot]'. Also works while the coordinator is stopped.
    """
    from covey.library.plot import draw, read

    with connected(target) as connection:
        panels = draw(read(connection, runs), path, metrics, over)
    click.echo(f"{', '.join(panels)} of {', '.join(runs)}, written to {path}")
