"""A real federation on this machine: a coordinator and nodes as processes, enrolled as between machines."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from covey.client.errors import Unreachable
from covey.client.experiments.daemons import LocalDaemon, LocalDaemons, free_ports

if TYPE_CHECKING:
    from covey.client.connection import Connection

READY_S = 60.0
POLL_S = 0.01
TOKEN_S = 600.0
ANY_PORT = "127.0.0.1:0"


class LocalFederation:
    """The processes of a federation on this machine, and the way to it.

    Attributes:
        folder: Where everything is: `coordinator`, `nodes/NAME`, `logs/NAME.log`.
        daemons: The processes.
    """

    def __init__(self, folder: Path, daemons: LocalDaemons) -> None:
        self.folder, self.daemons = folder, daemons

    @property
    def data_dir(self) -> Path:
        """The coordinator's data directory."""
        return self.folder / "coordinator"

    @property
    def logs(self) -> Path:
        """The folder with a log of each daemon."""
        return self.folder / "logs"

    def check(self) -> None:
        """Make sure that all daemons run. Raises `DaemonFailed`."""
        self.daemons.check()

    def connect(self) -> Connection:
        """A connection to the coordinator."""
        from covey.client.connection import Connection
        from covey.client.target import Target

        return Connection(Target(self.data_dir))

    def start_coordinator(self) -> LocalDaemon:
        """Start the coordinator, on free ports of the loopback."""
        options = ["--data-dir", self.data_dir, "--listen", ANY_PORT, "--enrol-listen", ANY_PORT]
        return self.daemons.start("the coordinator", ["coordinator", "start", *options], self._log("coordinator"))

    def wait_ready(self, coordinator: LocalDaemon) -> None:
        """Wait until the coordinator listens.

        Raises:
            DaemonFailed: It ended.
            Unreachable: It takes longer than `READY_S`.
        """
        give_up_at = time.monotonic() + READY_S
        while not self._announced(coordinator):
            coordinator.check()
            if time.monotonic() > give_up_at:
                raise Unreachable(f"the coordinator is not ready after {READY_S:g} s; see {coordinator.log}")
            time.sleep(POLL_S)

    def _announced(self, coordinator: LocalDaemon) -> bool:
        with contextlib.suppress(FileNotFoundError):
            text = (self.data_dir / "coordinator.json").read_text()
            return bool(json.loads(text)["pid"] == coordinator.process.pid)
        return False

    def start_nodes(self, names: list[str]) -> None:
        """Enrol nodes, and start each at once; their peers can call them."""
        from covey.node.membership.enrolment import join

        with self.connect() as connection:
            for name, port in zip(names, free_ports(len(names)), strict=True):
                data_dir = self.folder / "nodes" / name
                join(connection.token(name, expires_s=TOKEN_S).token, data_dir)
                options = ["--data-dir", data_dir, "--device", "cpu", "--peer-listen", f"127.0.0.1:{port}"]
                self.daemons.start(name, ["node", "start", *options], self._log(name))

    def wait_connected(self, nodes: int) -> None:
        """Wait until so many nodes are connected.

        Raises:
            DaemonFailed: A daemon ended.
            Unreachable: It takes longer than `READY_S`.
        """
        give_up_at = time.monotonic() + READY_S
        with self.connect() as connection:
            while connection.status().nodes_connected < nodes:
                self.check()
                if time.monotonic() > give_up_at:
                    raise Unreachable(f"the nodes are not connected after {READY_S:g} s; see {self.logs}")
                time.sleep(POLL_S)

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"


@contextlib.contextmanager
def local(nodes: int = 4, *, folder: str | Path | None = None) -> Iterator[LocalFederation]:
    """Start a coordinator and nodes, and end them with the context.

    All nodes are connected when the context begins.

    Args:
        nodes: How many; they are called node-1, node-2 and so on.
        folder: Where everything is kept; default: a temporary folder, which is deleted at the end.

    Raises:
        DaemonFailed: A daemon ended by itself; the message holds the end of its log.
        Unreachable: The coordinator does not get ready, or the nodes do not connect.
    """
    place = Path(folder).absolute() if folder is not None else Path(tempfile.mkdtemp(prefix="covey-local-"))
    try:
        with LocalDaemons() as daemons:
            federation = LocalFederation(place, daemons)
            coordinator = federation.start_coordinator()
            # This takes as long as the coordinator's own start, and is done meanwhile.
            import covey.client.connection
            import covey.node.membership.enrolment  # noqa: F401

            federation.wait_ready(coordinator)
            federation.start_nodes([f"node-{number}" for number in range(1, nodes + 1)])
            federation.wait_connected(nodes)
            yield federation
    finally:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)
