"""The `covey` command. Its sub-commands are imported when they are used, so that `covey --help` is quick."""

from __future__ import annotations

import click

from covey import __version__
from covey.cli.framework.command import RootGroup

SUBCOMMANDS = {
    "demo": "covey.cli.commands.demo:demo",
    "simulate": "covey.cli.commands.simulate:simulate",
    "init": "covey.cli.commands.own_task.init:init",
    "task": "covey.cli.commands.own_task.task:task",
    "data": "covey.cli.commands.figures.data:data",
    "sweep": "covey.cli.commands.sweep.group:sweep",
    "gossip": "covey.cli.commands.gossip.group:gossip",
    "coordinator": "covey.cli.commands.coordinator:coordinator",
    "node": "covey.cli.commands.node:node",
    "ca": "covey.cli.commands.ca:ca",
    "relay": "covey.cli.commands.relay:relay",
    "run": "covey.cli.commands.run:run",
    "round": "covey.cli.commands.round:round_group",
    "ui": "covey.cli.commands.ui:ui",
    "events": "covey.cli.commands.events:events",
    "admin": "covey.cli.commands.coordinator:admin_group",
    "study": "covey.cli.commands.studies.study:study",
    "store": "covey.cli.commands.store:store",
    "health": "covey.cli.commands.health:health",
    "plugins": "covey.cli.commands.plugins:plugins",
}
EXAMPLES = (
    "covey demo",
    "covey coordinator start --data-dir /srv/covey",
    "covey node join TOKEN --data-dir /srv/node",
    "covey run submit digits.toml --data-dir /srv/covey --watch",
)


@click.group(
    cls=RootGroup, lazy=SUBCOMMANDS, examples=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="covey")
def covey() -> None:
    """Train one model together, without sharing data.

    Commands that ask a coordinator take --data-dir (or the environment variable COVEY_HOME) on its own
    machine, and --server with --identity from another one.
    """


def main() -> None:
    """Run the command line; the process ends with its exit code."""
    covey(prog_name="covey")


if __name__ == "__main__":
    main()
