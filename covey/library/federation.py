"""A federation as an object for scripts and notebooks: runs that are submitted to it are objects as well."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from typing_extensions import override

from covey.client.connection import Connection
from covey.client.connection import connect as open_connection
from covey.client.experiments.gossip import GossipOutcome, gossip_plan
from covey.client.experiments.gossip import simulate as run_gossip
from covey.client.experiments.local_federation import local as local_daemons
from covey.client.experiments.simulated import simulate as run_simulated
from covey.client.reading.names import RunName
from covey.client.specification import Specification, parsed
from covey.client.target import Target
from covey.client.values import Event, Node, Status
from covey.library.aio import AsyncFederation
from covey.library.records import Records
from covey.library.run import FederatedRun

NODE_COLUMNS = ("node", "state", "last_seen_at", "accepted", "rejected", "declined", "lost", "late", "last_reason")


class Federation:
    """A federation: as a context manager it is closed at the end, `async with` gives its asynchronous form.

    Calls block; they raise the `CoveyError` that says what is wrong and what to do. One thread at a time may use it.

    Attributes:
        client: The same federation as the command line has it; tokens, backups and the rest are there.
    """

    def __init__(self, connection: Connection) -> None:
        self.client = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> AsyncFederation:
        return AsyncFederation(self.client)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Close the connection; iterators that came of it end."""
        self.client.close()

    def submit(self, spec: Specification | Mapping[str, Any]) -> FederatedRun:
        """Check a specification (a path, TOML text, or a mapping), here and at the coordinator, and queue the run.

        Raises:
            SpecError: It is wrong; the message names key, value and choices.
        """
        return FederatedRun(self.client, self.client.submit(spec))

    def run(self, name: RunName) -> FederatedRun:
        """A run by its id, or the newest of a name."""
        return FederatedRun(self.client, self.client.run(name))

    def runs(self, limit: int = 100) -> Records[FederatedRun]:
        """The newest runs, the newest first."""
        return _Runs([FederatedRun(self.client, run) for run in self.client.runs(limit)])

    def nodes(self) -> Records[Node]:
        """All nodes, by name."""
        return Records(self.client.nodes(), NODE_COLUMNS)

    def events(self, *, run: RunName = "", node: str = "", limit: int | None = 100) -> Records[Event]:
        """The newest events, the newest first, optionally of one run or node."""
        return Records(self.client.events(run=run, node=node, limit=limit))

    def status(self) -> Status:
        """What the coordinator does now."""
        return self.client.status()


class _Runs(Records[FederatedRun]):
    """Runs, which are shown by what is known of them."""

    @override
    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "name": run.name,
                "run": run.id,
                "state": run.state,
                "done": run.value.done,
                "of": run.value.whole,
                "submitted_at": run.value.submitted_at,
                "metrics": dict(run.value.metrics),
                "reason": run.reason,
            }
            for run in self
        ]


def connect(
    data_dir: str | Path | None = None, *, server: str | None = None, identity: str | Path | None = None
) -> Federation:
    """Reach a federation.

    Args:
        data_dir: The coordinator's data directory, on its own machine; what only reads works without a coordinator too.
        server: Else its address, `HOST:PORT`.
        identity: With `server`: a folder with the caller's key and certificate.

    Raises:
        ValueError: Neither is given, or both are.
    """
    return Federation(open_connection(data_dir, server=server, identity=identity))


class SimulatedRun(FederatedRun):
    """A run that was simulated: it has ended, and its record stays in `data_dir`."""

    def __init__(self, connection: Connection, run: Any, seconds: float, data_dir: Path) -> None:
        super().__init__(connection, run)
        self.seconds, self.data_dir = seconds, data_dir

    def close(self) -> None:
        """Close its record; the files stay."""
        self._connection.close()


def simulate(spec: Specification | Mapping[str, Any], nodes: int, **options: Any) -> SimulatedRun | GossipOutcome:
    """Run a specification with many nodes in this process; the run, as one of a federation.

    Works in a notebook, too. Options are those of `covey.client.simulate`: `data_dir`, `processes`, `attacks`, `paths`,
    `staleness`, `device`, `events`, `on_progress`.

    A run of mode gossip has no coordinator, and no record of one: what came of each node is given, and of all of them.
    Its options are those of `covey.client.experiments.gossip.gossip_plan`, and `on_progress`.

    Raises:
        SpecError: It cannot work; the message says why.
    """
    if not parsed(spec, later=True).facts.coordinated:
        watch = {name: options.pop(name) for name in ("on_progress",) if name in options}
        return run_gossip(gossip_plan(spec, nodes, **options), **watch)
    done = run_simulated(spec, nodes, **options)
    return SimulatedRun(Connection(Target(done.data_dir)), done.run, done.seconds, done.data_dir)


@contextlib.contextmanager
def local(nodes: int = 4, *, folder: str | Path | None = None) -> Iterator[Federation]:
    """A real federation on this machine: a coordinator and nodes as processes, which end with the context.

    Args:
        nodes: How many; they are called node-1, node-2 and so on.
        folder: Where everything is kept; default: a temporary folder, which is deleted at the end.

    Raises:
        DaemonFailed: A daemon ended by itself; the message holds the end of its log.
    """
    with local_daemons(nodes, folder=folder) as machine, Federation(machine.connect()) as federation:
        yield federation
