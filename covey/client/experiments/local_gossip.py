"""A real gossip federation on this machine: an authority, identities, a peers file, and nodes as processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from covey.client import authority
from covey.client.experiments.daemons import LocalDaemon, LocalDaemons, free_ports
from covey.client.gossip_nodes import read_node
from covey.errors import NotFound, StoreError

POLL_S = 0.1


class LocalGossip:
    """The nodes of one gossip run on this machine.

    Attributes:
        folder: Where everything is: `ca`, `run.toml`, `peers.toml`, `nodes/NAME`, `logs/NAME.log`.
        names: The nodes: node-1, node-2 and so on.
    """

    def __init__(self, folder: Path, names: Sequence[str], daemons: Sequence[LocalDaemon]) -> None:
        self.folder, self.names, self._daemons = folder, names, daemons

    @property
    def data_dirs(self) -> list[Path]:
        """The nodes' data directories."""
        return [self.folder / "nodes" / name for name in self.names]

    @property
    def step(self) -> int:
        """The step of the node that is furthest back, by the records; 0 before all have one."""
        try:
            return min(read_node(data_dir).machine.step for data_dir in self.data_dirs)
        except (NotFound, StoreError):
            return 0

    def wait(self, on_step: Callable[[int], object] = lambda step: None) -> None:
        """Wait until all nodes have ended by themselves: all steps are done.

        Args:
            on_step: Told of `step` now and then.

        Raises:
            DaemonFailed: A node failed.
        """
        while any(daemon.process.poll() is None for daemon in self._daemons):
            for daemon in self._daemons:
                if daemon.process.poll():
                    daemon.check()
            on_step(self.step)
            time.sleep(POLL_S)
        for daemon in self._daemons:
            if daemon.process.returncode:
                daemon.check()


@contextlib.contextmanager
def local_gossip(spec: str, nodes: int, folder: Path) -> Iterator[LocalGossip]:
    """Start the nodes of a gossip run, and end them with the context.

    Args:
        spec: The run's specification, TOML.
        nodes: How many.
        folder: For everything; it is there, and empty.
    """
    names = [f"node-{number}" for number in range(1, nodes + 1)]
    ca, run, peers = folder / "ca", folder / "run.toml", folder / "peers.toml"
    authority.init(ca)
    run.write_text(spec)
    addresses = [f"127.0.0.1:{port}" for port in free_ports(nodes)]
    entries = []
    for name, address in zip(names, addresses, strict=True):
        issued = authority.issue(ca, name, folder / "nodes" / name / "identity")
        entries.append(f'[[peers]]\nname = "{name}"\naddress = "{address}"\nfingerprint = "{issued.fingerprint}"\n')
    peers.write_text("\n".join(entries))
    with LocalDaemons() as daemons:
        started = []
        for name, address in zip(names, addresses, strict=True):
            data_dir = folder / "nodes" / name
            options = ["--data-dir", data_dir, "--peers", peers, "--listen", address, "--device", "cpu"]
            started.append(daemons.start(name, ["gossip", "start", run, *options], folder / "logs" / f"{name}.log"))
        yield LocalGossip(folder, names, started)
