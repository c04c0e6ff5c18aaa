"""Any graph, as the run's file lists it; and reading one from a file of networkx or a list of edges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import field_validator
from typing_extensions import override

from covey.errors import SpecError
from covey.gossip.graph import Graph, graph_of, is_strongly_connected
from covey.gossip.topologies.contract import Swarm, Topology
from covey.options import PluginOptions

EDGES_AT_MOST = 1_000_000


class Given(Topology):
    """The edges that are listed; those of nodes that are not there fall away.

    Where the edges of the live nodes do not connect all of them, the live nodes also send round a ring in the order of
    the roster, so that a run does not fall into parts because of one death.
    """

    class Options(PluginOptions):
        """Options of `file`."""

        edges: tuple[tuple[str, str], ...]
        """From and to, by the nodes' names. A specification in a file may name a file of them (`read_edges`): whoever
        submits or starts it reads that, and puts them here."""

        @field_validator("edges", mode="before")
        @classmethod
        def _pairs(cls, edges: Any) -> Any:
            if isinstance(edges, str):
                raise ValueError("a file of edges is read only for a specification that is a file itself; list them")
            return tuple(tuple(edge) for edge in edges) if isinstance(edges, list | tuple) else edges

    options: Options

    @override
    def graph(self, step: int, swarm: Swarm) -> Graph:
        place = {name: position for position, name in enumerate(swarm.nodes)}
        targets: list[list[int]] = [[] for _ in swarm.nodes]
        for source, target in self.options.edges:
            if source in place and target in place:
                targets[place[source]].append(place[target])
        graph = graph_of(targets)
        if is_strongly_connected(graph):
            return graph
        return graph_of([*out, (node + 1) % len(graph)] for node, out in enumerate(graph))

    @override
    def period(self, swarm: Swarm) -> int:
        return 1


def read_edges(path: Path) -> tuple[tuple[str, str], ...]:
    """The edges of a graph in a file: node-link JSON, as networkx writes it, or a list of edges, two names a line.

    Raises:
        SpecError: It cannot be read; the message names the line.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read: {error}") from error
    edges = _from_json(text, path) if text.lstrip().startswith("{") else _from_lines(text, path)
    if len(edges) > EDGES_AT_MOST:
        raise SpecError(f"{path} has {len(edges)} edges; at most {EDGES_AT_MOST} are read")
    return tuple(dict.fromkeys(edges))


def _from_json(text: str, path: Path) -> list[tuple[str, str]]:
    try:
        graph = json.loads(text)
        listed = graph["edges"] if "edges" in graph else graph["links"]
        edges = [(str(edge["source"]), str(edge["target"])) for edge in listed]
    except (ValueError, KeyError, TypeError) as error:
        raise SpecError(f"{path} is no node-link graph ('edges' with 'source' and 'target'): {error!r}") from error
    return edges if graph.get("directed", True) else edges + [(target, source) for source, target in edges]


def _from_lines(text: str, path: Path) -> list[tuple[str, str]]:
    edges = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if len(words) == 1:
            raise SpecError(f"{path}, line {number}: an edge is two names, not {line.strip()!r}")
        if words:
            edges.append((words[0], words[1]))
    return edges
