"""`covey run statistics`: what a run of method `statistics` came to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from covey.cli.framework.command import Command
from covey.cli.framework.connecting import connected
from covey.cli.framework.options import target_options
from covey.cli.framework.records import Form, list_options, print_records
from covey.figures import QUANTILES

if TYPE_CHECKING:
    from covey.client.target import Target

FIGURES_FIELDS = (
    "(a list: of each column column, nodes, silent, count, missing, hides_missing, mean, variance, std, hidden, qQ, "
    "qQ_least, qQ_most for each quantile Q, edges, cells; of each label label, count, nodes_hiding)",
)


@click.command(
    "statistics",
    cls=Command,
    examples=(
        "covey run statistics ages --data-dir /srv/covey",
        "covey run statistics ages --quantile 0.1 --quantile 0.9",
        "covey run statistics ages --csv > ages.csv",
        "covey run statistics ages --json | jq '.[0].q0.5'",
    ),
    json_fields=FIGURES_FIELDS,
)
@click.argument("run")
@click.option(
    "--quantile",
    "quantiles",
    type=click.FloatRange(0, 1),
    multiple=True,
    help=f"Which one; repeatable [default: {', '.join(map(str, QUANTILES))}].",
)
@list_options
@target_options
def statistics(run: str, quantiles: tuple[float, ...], form: Form, target: Target) -> None:
    """Show what RUN, a run of method `statistics`, says of the nodes' data.

    Numbers, means, spreads and quantiles of each column, and how many examples have each label. HIDDEN: in cells of
    too few examples, which nodes did not say; quantiles lie between the values beside them wherever those are.

    Also works while the coordinator is stopped.
    """
    from covey.cli.commands.figures.tables import figures_tables
    from covey.cli.views.listing import show
    from covey.client.reading.figures import read_figures

    with connected(target) as connection:
        figures = read_figures(connection, connection.run(run))
    asked = quantiles or QUANTILES
    if form:
        print_records(figures.records(asked), form)
    else:
        show(*figures_tables(figures, asked))
