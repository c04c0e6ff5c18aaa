"""What the page shows of a gossip run: each node's part and curve, and who gave whom how much."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from itertools import groupby, islice
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from covey.client.progress.history import thinned
from covey.client.reading.gossip_parts import GossipView
from covey.client.reading.gossip_steps import GossipStep
from covey.client.values import Run
from covey.gossip.mass import weight
from covey.ui.asked import choice
from covey.ui.shapes import plain
from covey.ui.source import Source

MOST_CURVES = 20
"""Nodes whose curves are drawn."""
MOST_EDGES = 400
POINTS = 300
"""Of a curve."""
KEPT = 4
"""Runs whose steps are kept."""
REST = 10
"""Steps are read anew at the earliest after so many times as long as reading them took."""
LEAST_S = 3.0


DRILL = "drill"
"""A node's mark on its steps that it is an adversary for a drill: no curve."""


class GossipReadings:
    """The addresses that read gossip runs.

    Args:
        source: The federation.
    """

    def __init__(self, source: Source) -> None:
        self._source, self._steps = source, Steps(source)

    def routes(self) -> list[Route]:
        """All of them."""
        return [Route("/api/runs/{run}/gossip", self.gossip), Route("/api/runs/{run}/steps", self.steps)]

    def gossip(self, request: Request) -> Response:
        """Parts, the account of mass, and what was given along each edge."""
        view = self._source.ask(lambda c: c.gossip(request.path_params["run"]))
        return JSONResponse(view_json(view) | {"now": time.time()})

    def steps(self, request: Request) -> Response:
        """Curves of each node: its loss, other metrics, and its mass."""
        run = self._source.ask(lambda c: c.run(request.path_params["run"]))
        over = choice(request, "over", ("rounds", "seconds"))
        return JSONResponse(step_charts(self._steps.of(run), run, over, POINTS) | {"ended": run.ended})


def view_json(view: GossipView) -> dict[str, Any]:
    """All of it; where mass counts, in units of what a node begins with, else in models."""
    mass = view.mass
    has_mass = mass.weighs == "mass"

    def units(value: int) -> float:
        return weight(value) if has_mass else float(value)

    edges = [
        {
            "from": edge.sender.node,
            "from_life": edge.sender.number,
            "to": edge.receiver.node,
            "to_life": edge.receiver.number,
            "given": units(edge.given.sent) if edge.given else None,
            "batches": edge.given.sequence if edge.given else edge.had.sequence if edge.had else 0,
            "waiting": units(edge.given.waiting) if edge.given else 0.0,
            "had": units(edge.had.applied) if edge.had else None,
            "agrees": edge.agrees,
        }
        for edge in mass.edges[:MOST_EDGES]
    ]
    account = {name: units(getattr(mass, name)) for name in ("live", "in_flight", "minted", "lost", "uncertain")}
    return {
        "parts": plain(view.parts),
        "edges": edges,
        "more_edges": max(0, len(mass.edges) - MOST_EDGES),
        "mass": account | {"exact": mass.is_exact, "weighs": mass.weighs, "findings": list(mass.findings)},
    }


def step_charts(steps: list[GossipStep], run: Run, over: str, most: int) -> dict[str, Any]:
    """Curves of nodes by metric; `rounds` stands for their own steps."""
    measured = {name for step in steps for name in step.metrics} - {DRILL}
    names = sorted(measured, key=lambda name: (name != "loss", name))
    by_node = {node: list(told) for node, told in islice(groupby(steps, lambda step: step.node), MOST_CURVES)}
    drawn = []
    for name in [*names, "mass"]:
        series = []
        for node, told in by_node.items():
            values = [(step, step.weight if name == "mass" else step.metrics.get(name)) for step in told]
            known = [(step, float(value)) for step, value in values if value is not None]
            xs = [float(step.step) if over == "rounds" else step.at - (run.started_at or 0.0) for step, _ in known]
            shown_xs, shown_ys = thinned(xs, [value for _, value in known], most)
            series.append({"label": node, "x": shown_xs, "y": shown_ys})
        drawn.append({"name": name, "series": series})
    nodes = len({step.node for step in steps})
    return {
        "names": [*names, "mass"],
        "charts": plain(drawn),
        "unit": "steps",
        "over": over,
        "is_whole": True,
        "nodes": nodes,
    }


class _Read(NamedTuple):
    """Steps of a run, as they were read."""

    state: str
    steps: list[GossipStep]
    fresh_until: float


class Steps:
    """Steps of the gossip runs that were looked at last: all statements are read for them, over a connection aside.

    Args:
        source: The federation.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Read] = OrderedDict()

    def of(self, run: Run) -> list[GossipStep]:
        """All steps of a run, as they are or were a few seconds ago."""
        with self._lock:
            began, read = time.monotonic(), self._kept.pop(run.run, None)
            if read is None or read.state != run.state or (began > read.fresh_until and not run.ended):
                steps = self._source.aside(lambda c: c.gossip_steps(run))
                now = time.monotonic()
                read = _Read(run.state, steps, now + max(LEAST_S, REST * (now - began)))
            self._kept[run.run] = read
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return read.steps
