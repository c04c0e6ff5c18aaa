"""`covey gossip trace`: a run as a timeline that Perfetto and Chrome show."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from covey.cli.framework.command import Command, print_json
from covey.cli.framework.options import FILE, json_option


@click.command(
    cls=Command,
    examples=(
        "covey gossip trace /srv/a /srv/b /srv/c --out trace.json",
        "covey gossip trace /srv/node --run digits-gossip --out trace.json --json",
    ),
    json_fields=("file", "run", "nodes", "exchanges", "began (Unix seconds of the file's time 0)"),
)
@click.argument("nodes", metavar="DATA_DIR...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=FILE, required=True, help="The file to write (trace-event JSON).")
@click.option("--run", help="The run's name (its id, through a coordinator), where a node has several.")
@json_option
def trace(nodes: tuple[Path, ...], out: Path, run: str | None, as_json: bool) -> None:
    """Write a timeline of the run: every exchange, and when each node trained, mixed, wrote its record, and waited.

    It is made of the records in the nodes' data directories, also while they run: a process a node, an arrow from where
    a batch was sent to where it was taken. Open the file at https://ui.perfetto.dev, or in Chrome at chrome://tracing.
    Times are those of each node's clock. What a node that was killed did after its newest publication is not there.
    """
    from covey.client.gossip_timeline import read_timeline
    from covey.storage.files.spool import disk_errors

    timeline = read_timeline(list(nodes), run)
    with disk_errors(out):
        out.write_text(json.dumps(timeline.to_json(), allow_nan=False))
    names = [str(node) for node in timeline.nodes]
    if as_json:
        whole = {"run": timeline.run, "nodes": names, "exchanges": timeline.exchanges, "began": timeline.trace.began}
        print_json({"file": str(out), **whole})
        return
    click.echo(
        f"{shlex.quote(str(out))}: {timeline.exchanges} exchanges by the records of {', '.join(names)}; "
        "open it at https://ui.perfetto.dev"
    )
