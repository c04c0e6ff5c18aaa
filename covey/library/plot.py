"""Curves of runs as a picture: metrics, bytes, and verdicts by node. Drawn by matplotlib, where it is installed."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal

from typing_extensions import override

from covey.client.connection import Connection
from covey.client.reading.gossip_steps import GossipStep
from covey.client.values import Contribution, Round, Run
from covey.errors import NotFound, SpecError

Axis = Literal["rounds", "seconds", "bytes"]
SUFFIXES = (".png", ".svg", ".pdf")
VERDICTS = ("accepted", "rejected", "declined", "lost", "late")
MOST_NODES = 40
"""Bars of one picture; of more nodes, those with the fewest accepted updates."""
WIDTH_IN, HEIGHT_IN = 8.0, 2.6


class Curves:
    """What is drawn of one run.

    Args:
        run: It.
        rounds: Its rounds, in order.
        nodes: What each node did in it.
        label: How the legend calls it.
    """

    def __init__(self, run: Run, rounds: Sequence[Round], nodes: Sequence[Contribution], label: str) -> None:
        self.run, self.rounds, self.nodes, self.label = run, rounds, nodes, label

    def metrics(self) -> set[str]:
        """The names of its metrics that are numbers."""
        pairs = (pair for item in self.rounds for pair in item.metrics.items())
        return {name for name, value in pairs if isinstance(value, int | float)}

    def points(self, value: str, over: Axis) -> tuple[list[float], list[float]]:
        """A curve of a metric, or of `bytes`: over rounds, seconds since the run began, or bytes in both directions."""
        xs, ys, carried = list[float](), list[float](), 0
        for item in self.rounds:
            carried += item.bytes_received + item.bytes_sent
            y = carried if value == "bytes" else item.metrics.get(value)
            if not isinstance(y, int | float):
                continue
            if over == "seconds" and item.committed_at is None:
                continue  # it goes on: its place is not known
            seconds = (item.committed_at or 0.0) - (self.run.started_at or 0.0)
            xs.append({"rounds": item.round, "seconds": seconds, "bytes": carried}[over])
            ys.append(y)
        return xs, ys


class NodeCurves(Curves):
    """What is drawn of one node of a gossip run.

    Args:
        run: It.
        steps: The node's steps, in order.
        label: How the legend calls it.
    """

    def __init__(self, run: Run, steps: Sequence[GossipStep], label: str) -> None:
        super().__init__(run, (), (), label)
        self.steps = steps

    @override
    def metrics(self) -> set[str]:
        return {name for step in self.steps for name in step.metrics}

    @override
    def points(self, value: str, over: Axis) -> tuple[list[float], list[float]]:
        if over == "bytes":
            raise SpecError("a gossip run's bytes do not pass the coordinator; choose --over rounds or seconds")
        known = [(step, step.weight if value == "mass" else step.metrics.get(value)) for step in self.steps]
        points = [(step, y) for step, y in known if y is not None]
        began = self.run.started_at or 0.0
        return [step.step if over == "rounds" else step.at - began for step, _ in points], [y for _, y in points]


def read(connection: Connection, names: Sequence[str]) -> list[Curves]:
    """Runs by id or name, of a gossip run a curve a node. Runs of one name have their ids in the legend.

    Raises:
        SpecError: Gossip runs and others.
    """
    runs = [connection.run(name) for name in names]
    if len({run.is_coordinated for run in runs}) > 1:
        raise SpecError("a gossip run has steps of nodes, and the others rounds of all: draw them apart")
    twice = len({run.name for run in runs}) < len(runs)
    labels = [f"{run.name} ({run.run})" if twice else run.name for run in runs]
    if not runs[0].is_coordinated:
        return [curve for run, label in zip(runs, labels, strict=True) for curve in _by_node(connection, run, label)]
    return [
        Curves(run, connection.rounds(run), connection.contributions(run), label)
        for run, label in zip(runs, labels, strict=True)
    ]


def _by_node(connection: Connection, run: Run, label: str) -> Iterator[Curves]:
    by_node = groupby(connection.gossip_steps(run), lambda step: step.node)
    for node, steps in islice(by_node, MOST_NODES):
        yield NodeCurves(run, list(steps), f"{label}: {node}")


def draw(curves: Sequence[Curves], to: Path, metrics: Sequence[str] = (), over: Axis = "rounds") -> list[str]:
    """Write a picture; what its panels show.

    Args:
        curves: One or more runs.
        to: A .png, .svg or .pdf file.
        metrics: Which; default: accuracy and loss, or else all that there are.
        over: What is along.

    Raises:
        SpecError: Another suffix.
        NotFound: No such metric, no such folder, or matplotlib is not installed; the message says what to do.
    """
    beside = ["bytes", "verdicts"] if any(item.run.is_coordinated for item in curves) else ["mass"]
    panels = [*_metrics(curves, metrics), *beside]
    figure, places = new_figure(to, len(panels))
    for axes, panel in zip(places, panels, strict=True):
        if panel == "verdicts":
            _bars(axes, curves)
        else:
            _lines(axes, curves, panel, over)
    save(figure, to)
    return panels


def new_figure(to: Path, panels: int) -> tuple[Any, Sequence[Any]]:
    """A figure for a file, and its panels, one below the other.

    Raises:
        SpecError: It is no picture's file.
        NotFound: matplotlib is not installed.
    """
    if to.suffix not in SUFFIXES:
        raise SpecError(f"{to.name}: a picture is a {', '.join(SUFFIXES)} file")
    try:
        figures = importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        raise NotFound("pictures are drawn by matplotlib: pip install 'covey[plot]'; --csv has the numbers") from error
    figure = figures.Figure(figsize=(WIDTH_IN, HEIGHT_IN * panels), layout="constrained")
    return figure, figure.subplots(panels, squeeze=False)[:, 0]


def save(figure: Any, to: Path) -> None:
    """Write a figure. Raises NotFound where that cannot be."""
    try:
        figure.savefig(to)
    except OSError as error:
        raise NotFound(f"{to} cannot be written: {error.strerror}") from error


def _metrics(curves: Sequence[Curves], wanted: Sequence[str]) -> list[str]:
    known = sorted(set().union(*(item.metrics() for item in curves)))
    if missing := [name for name in wanted if name not in known]:
        raise NotFound(f"no run has a metric {missing[0]!r}; there are: {', '.join(known) or 'none yet'}")
    usual = [name for name in known if name.rpartition("/")[2] in ("accuracy", "loss")]
    return list(wanted) or usual or known


def _lines(axes: Any, curves: Sequence[Curves], value: str, over: Axis) -> None:
    for item in curves:
        xs, ys = item.points(value, over)
        axes.plot(xs, ys, marker="." if len(xs) < MOST_NODES else "", label=literal(item.label))
    unit = curves[0].run.unit if over == "rounds" else over
    axes.set(xlabel=unit, ylabel="bytes in all" if value == "bytes" else literal(value))
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend()


def _bars(axes: Any, curves: Sequence[Curves]) -> None:
    rows = sorted(_rows(curves), key=lambda row: row[1].accepted)[:MOST_NODES]
    rows.sort(key=lambda row: row[0])
    places, below = range(len(rows)), [0] * len(rows)
    for verdict in VERDICTS:
        counts = [getattr(node, verdict) for _, node in rows]
        axes.bar(places, counts, bottom=below, label=verdict)
        below = [low + count for low, count in zip(below, counts, strict=True)]
    axes.set_xticks(places, [literal(name) for name, _ in rows], rotation=90 if len(rows) > 8 else 0)
    axes.set(ylabel="answers")
    axes.legend(ncols=len(VERDICTS), fontsize="small")


def _rows(curves: Sequence[Curves]) -> Iterator[tuple[str, Contribution]]:
    for item in curves:
        for node in item.nodes:
            yield f"{item.label}: {node.node}" if len(curves) > 1 else node.node, node


def literal(text: str) -> str:
    """Names are shown as they are: a dollar sign begins no mathematics."""
    return text.replace("$", r"\$")
