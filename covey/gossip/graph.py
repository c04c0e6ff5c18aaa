"""Directed graphs of a few thousand nodes, as tuples of positions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Graph = tuple[tuple[int, ...], ...]
"""The out-neighbours of each node, by position: ascending, without itself, each once."""


def graph_of(neighbours: Iterable[Iterable[int]]) -> Graph:
    """A graph from the out-neighbours of each node; doubles and edges from a node to itself are left out."""
    return tuple(tuple(sorted(set(targets) - {node})) for node, targets in enumerate(neighbours))


def in_neighbours(graph: Graph) -> Graph:
    """The same edges, turned round."""
    sources: list[list[int]] = [[] for _ in graph]
    for node, targets in enumerate(graph):
        for target in targets:
            sources[target].append(node)
    return tuple(map(tuple, sources))


def is_symmetric(graph: Graph) -> bool:
    """Whether each edge has one that goes back."""
    return graph == in_neighbours(graph)


def union(graphs: Sequence[Graph]) -> Graph:
    """The edges of all of them; they have the same nodes."""
    return graph_of([target for graph in graphs for target in graph[node]] for node in range(len(graphs[0])))


def is_strongly_connected(graph: Graph) -> bool:
    """Whether every node can be reached from every other one."""
    return not graph or (len(_reached(graph)) == len(graph) == len(_reached(in_neighbours(graph))))


def _reached(graph: Graph) -> set[int]:
    reached, waiting = {0}, [0]
    while waiting:
        for target in graph[waiting.pop()]:
            if target not in reached:
                reached.add(target)
                waiting.append(target)
    return reached
