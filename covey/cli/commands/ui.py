"""`covey ui`: a federation as a live page in the browser."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from covey.cli.framework.command import Command
from covey.cli.framework.options import target_options
from covey.cli.framework.processes import interrupted_by_signals
from covey.errors import NotFound

if TYPE_CHECKING:
    from covey.client.target import Target

PORT = 7480


@click.command(
    cls=Command,
    examples=(
        "covey ui --data-dir /srv/covey",
        "covey ui --server train.example.org:7400 --identity ~/alice --no-open",
        "ssh -L 7480:127.0.0.1:7480 train.example.org covey ui --data-dir /srv/covey",
    ),
)
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0: any free one.")
@click.option("--no-open", is_flag=True, help="Only print the address; do not open a browser.")
@target_options
def ui(port: int, no_open: bool, target: Target) -> None:
    """Show runs, rounds and nodes as they go, as a page on 127.0.0.1, until Ctrl-C.

    The address that is printed has a token: whoever has it may do what your identity may, as long as this
    runs. The page stops runs and evicts nodes, too, once you have confirmed it. With --data-dir it also shows the
    record while the coordinator is stopped.

    Needs Starlette and Uvicorn: pip install 'covey[ui]'.
    """
    try:
        from covey.ui.server import serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise NotFound(f"the page needs {error.name}: pip install 'covey[ui]'") from error
    with contextlib.suppress(KeyboardInterrupt), interrupted_by_signals():
        serve(target, port, lambda address: click.echo(f"the page is at {address}\nCtrl-C ends it"), opens=not no_open)
