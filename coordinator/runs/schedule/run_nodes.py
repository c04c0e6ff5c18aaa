"""The connected nodes as one run sees them: those that work for it."""

from __future__ import annotations

from covey import messages as msg
from covey.coordinator.runs.ports import Nodes
from covey.machines.places import Places


class RunNodes:
    """The nodes on which a run has a place (`covey.coordinator.runs.ports.Nodes`).

    Args:
        nodes: All that are connected.
        places: Who has a place where.
        run: Its id.
    """

    def __init__(self, nodes: Nodes, places: Places, run: str) -> None:
        self._nodes, self._places, self._run = nodes, places, run

    def send(self, node: str, message: msg.CoordinatorMessage) -> bool:
        """Send to a node; False if it is not connected, or not one of this run's."""
        return self.takes(node) and self._nodes.send(node, message)

    def nodes(self) -> list[str]:
        """Those that are connected and have a place for the run, by id."""
        return [node for node in self._nodes.nodes() if self._admits(node)]

    def takes(self, node: str) -> bool:
        """Whether a node, connected or not, may work for the run."""
        return self._places.uses(self._run, node) and self._nodes.takes(node)

    def peer(self, node: str) -> msg.GossipMember | None:
        """Where other nodes call one of them; None: it is not connected, or not one of this run's."""
        return self._nodes.peer(node) if self._admits(node) else None

    def __contains__(self, node: object) -> bool:
        return isinstance(node, str) and self._admits(node) and node in self._nodes

    def _admits(self, node: str) -> bool:
        return self._places.admits(self._run, node)
