"""The federation that is struck: each node reaches its coordinator through a relay of its own."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from covey.testing.chaos.schedule import COORDINATOR
from covey.testing.federation import Federation
from covey.testing.launch.processes import Daemon
from covey.testing.relay import RelayThread

MAX_RUNS = 8
READY_S = 120.0
FLOAT_BYTES = 4


class Arena:
    """A running federation, with what strikes need of it.

    Args:
        root: A folder for everything.
        nodes: How many.
        parameters: Of the models whose transfers are cut.
        allowed: What nodes let a run name by its import path.
        fork: Whether daemons are copies of one process (`covey.testing.launch.forks`), where that is enabled.
    """

    def __init__(
        self, root: Path, nodes: int, *, parameters: int, allowed: Collection[str] = (), fork: bool = True
    ) -> None:
        self.update_bytes = FLOAT_BYTES * parameters
        self.federation = Federation(root, nodes, fork=fork)
        self._allowed = allowed
        self._relays: dict[str, RelayThread] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Arena:
        federation = self._stack.enter_context(self.federation)
        self.start_coordinator()
        federation.join()
        for index, name in enumerate(federation.names):
            self._relays[name] = self._stack.enter_context(RelayThread(federation.coordinator_address))
            paths = ", ".join(f'"{path}"' for path in self._allowed)
            (federation.node_dir(index) / "node.toml").write_text(f"[policy]\nallow_paths = [{paths}]\n")
            self.start(name)
        federation.wait_connected(len(federation.names), READY_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def names(self) -> tuple[str, ...]:
        """Everybody: the coordinator, then the nodes."""
        return COORDINATOR, *self.federation.names

    def daemon(self, name: str) -> Daemon:
        """The newest process of that name."""
        daemon = self.federation.coordinator if name == COORDINATOR else self.federation.node(self.index(name))
        if daemon is None:
            raise LookupError(f"{name} was not started")
        return daemon

    def index(self, node: str) -> int:
        """A node's number."""
        return self.federation.names.index(node)

    def relay(self, node: str) -> RelayThread:
        """What stands between a node and its coordinator."""
        return self._relays[node]

    def start(self, name: str) -> None:
        """Start a daemon again; a coordinator answers when this returns."""
        if name == COORDINATOR:
            self.start_coordinator()
        else:
            self.federation.start_node(self.index(name), options=["--server", self.relay(name).address])

    def start_coordinator(self) -> None:
        """Start the coordinator."""
        self.federation.start_coordinator(options=["--allow-paths", "--max-runs", str(MAX_RUNS)], ready_s=READY_S)

    def folder(self, name: str) -> Path:
        """A node's data directory."""
        return self.federation.node_dir(self.index(name))

    def halves(self, fraction: float) -> RelayThread:
        """Nothing connects a node with another one here. Raises LookupError."""
        raise LookupError("nodes of a coordinator reach each other through that only")

    def processes(self, name: str) -> list[int]:
        """A daemon and its worker."""
        return [self.daemon(name).pid, *filter(None, [self.federation.worker_pids.get(name)])]
