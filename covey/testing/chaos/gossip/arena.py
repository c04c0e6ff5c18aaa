"""Gossip nodes that are struck: each two of them reach each other through relays of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from covey.testing.chaos.gossip.paced import PACED
from covey.testing.gossip import GossipNodes
from covey.testing.launch.processes import Daemon, children_of
from covey.testing.relay import Relay, RelayThread


class Cables:
    """Some relays, as one."""

    def __init__(self, relays: Sequence[RelayThread]) -> None:
        self._relays = relays

    def partition(self) -> None:
        """Cut all of them, until `heal`."""
        for relay in self._relays:
            relay.partition()

    def heal(self) -> None:
        """End it."""
        for relay in self._relays:
            relay.heal()

    def do(self, action: Callable[[Relay], None]) -> None:
        """Do something with each."""
        for relay in self._relays:
            relay.do(action)


class GossipArena:
    """Running nodes, with what strikes need of them.

    Args:
        nodes: Entered, and not started; with `links`.
        model_bytes: Size of a body.
        env: Added to the environment of the daemons.
    """

    def __init__(self, nodes: GossipNodes, model_bytes: int, env: Mapping[str, str]) -> None:
        self.nodes, self._model_bytes, self._env = nodes, model_bytes, env
        allow_paced(nodes)
        for name in nodes.names:
            self.start(name)

    @property
    def update_bytes(self) -> int:
        """Size of a body."""
        return self._model_bytes

    @property
    def names(self) -> Sequence[str]:
        """The nodes."""
        return self.nodes.names

    def _index(self, name: str) -> int:
        return self.nodes.names.index(name)

    def daemon(self, name: str) -> Daemon:
        """The newest process of that name."""
        return self.nodes.daemon(self._index(name))

    def folder(self, name: str) -> Path:
        """A node's data directory."""
        return self.nodes.folder(self._index(name))

    def relay(self, name: str) -> Cables:
        """All links of a node."""
        index = self._index(name)
        return Cables(self.nodes.links([index], range(len(self.names))))

    def halves(self, fraction: float) -> Cables:
        """All links between two halves of the nodes: from one node on, and the others."""
        count = len(self.names)
        order = [(int(fraction * count) + index) % count for index in range(count)]
        return Cables(self.nodes.links(order[: count // 2], order[count // 2 :]))

    def start(self, name: str) -> None:
        """Start a node again."""
        self.nodes.start(self._index(name), env=self._env)

    def processes(self, name: str) -> list[int]:
        """A daemon and its worker."""
        pid = self.daemon(name).pid
        return [pid, *children_of(pid)[pid][-1:]]


def allow_paced(nodes: GossipNodes) -> None:
    """Let nodes take part in runs of `PacedDigits`."""
    for index in range(len(nodes.names)):
        (nodes.folder(index) / "node.toml").write_text(f'[policy]\nallow_paths = ["{PACED}"]\n')
