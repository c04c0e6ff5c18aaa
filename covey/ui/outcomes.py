"""What a run came to that trains no model: how good one is on each node, or figures of the nodes' data."""

from __future__ import annotations

from typing import Any

from covey.client.connection import Connection
from covey.client.models.evaluations import Evaluation, evaluation_in
from covey.client.reading.figures import read_figures
from covey.client.values import Run
from covey.errors import NotFound
from covey.ui.shapes import kind_of, plain

MOST_NODES, MOST_CELLS = 200, 200
"""Nodes that are shown; cells of a histogram that are drawn."""


def outcome_of(connection: Connection, run: Run) -> dict[str, Any]:
    """What it came to, as far as it is.

    Args:
        connection: The federation.
        run: As it was read.
    """
    kind = kind_of(run)
    if kind == "evaluation":
        return {"kind": kind} | _evaluation(evaluation_in(connection, run.run))
    if kind == "statistics":
        try:
            figures = read_figures(connection, run)
        except NotFound as error:  # it has not come to any yet, or never will
            return {"kind": kind, "records": None, "why": str(error)}
        records = plain(list(figures.records()))
        for record in records:
            if len(record.get("cells", ())) > MOST_CELLS:
                record["cells"] = record["edges"] = []
        return {"kind": kind, "nodes": figures.nodes, "examples": figures.examples, "records": records}
    return {"kind": kind, "records": None}


def _evaluation(shown: Evaluation) -> dict[str, Any]:
    names = ("metric", "metrics", "alone", "gains", "gaining", "not_gaining", "central")
    about = {name: plain(getattr(shown, name)) for name in names}
    return about | {"nodes": plain(shown.nodes[:MOST_NODES]), "nodes_count": len(shown.nodes)}
