"""A federation as an object for scripts and notebooks: runs that are submitted to it are objects as well."""

from __future__ import annotations

import asyncio
import atexit
import html
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from typing_extensions import override

from covey.client.connection import Connection
from covey.client.connection import connect as open_connection
from covey.client.experiments.local_federation import local as local_daemons
from covey.client.reading.names import RunName
from covey.client.specification import Specification, parsed
from covey.client.target import Target
from covey.client.values import Event, Node, Status
from covey.errors import CoveyError, SpecError
from covey.library.aio import AsyncFederation
from covey.library.records import Records
from covey.library.run import FederatedRun

if TYPE_CHECKING:  # a simulation is a whole federation: half of what there would be to import
    from covey.client.experiments.gossip import GossipOutcome
    from covey.client.experiments.simulated import Simulated

SHOWN_RUNS = 5
"""The newest, where a notebook shows a federation."""
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

    @override
    def __repr__(self) -> str:
        return f"<federation at {self.client.target.data_dir or self.client.target.server}>"

    def _repr_html_(self) -> str:
        try:
            states = Counter(node.state for node in self.client.every_node())
            runs = self.runs(SHOWN_RUNS)
        except CoveyError as error:
            return f"<b>{html.escape(repr(self))}</b><br>{html.escape(str(error))}"
        nodes = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none yet"
        about = html.escape(f"nodes: {nodes}; {self._coordinator()}")
        return f"<b>{html.escape(repr(self))}</b><br>{about}{runs._repr_html_() if runs else ''}"

    def _coordinator(self) -> str:
        try:
            return f"the coordinator is {self.status().state}"
        except CoveyError:
            return "no coordinator is running"


class LocalFederation(Federation):
    """A federation of processes on this machine, which end when it is closed, or with Python.

    Args:
        connection: The way to it.
        ending: Closes the connection, and ends the processes.
    """

    def __init__(self, connection: Connection, ending: ExitStack) -> None:
        super().__init__(connection)
        self._ending = ending
        atexit.register(self.close)

    @override
    def close(self) -> None:
        atexit.unregister(self.close)
        self._ending.close()


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
    """A run that was simulated: it has ended, and its record stays in `data_dir`.

    What follows from it (`continue_`, `evaluate`) is simulated too, with as many nodes and the same options, into the
    same record.
    """

    def __init__(self, connection: Connection, done: Simulated, nodes: int, options: Mapping[str, Any]) -> None:
        super().__init__(connection, done.run)
        self.seconds, self.data_dir = done.seconds, done.data_dir
        self._nodes, self._options = nodes, {**options, "data_dir": done.data_dir}

    @override
    def _submitted(self, spec: Mapping[str, Any]) -> SimulatedRun:
        from covey.client.experiments.simulated import simulate as run_simulated

        is_synchronous = parsed(spec, later=True).facts.synchronous  # as an evaluation is: it knows no staleness
        options = {name: value for name, value in self._options.items() if name != "staleness" or not is_synchronous}
        done = run_simulated(spec, self._nodes, **options)
        return SimulatedRun(self._connection, done, self._nodes, self._options)

    @override
    def stop(self) -> SimulatedRun:
        """Nothing: it has ended."""
        return self

    def close(self) -> None:
        """Close its record, for all runs that followed from it, too; the files stay."""
        self._connection.close()


def simulate(spec: Specification | Mapping[str, Any], nodes: int, **options: Any) -> SimulatedRun | GossipOutcome:
    """Run a specification with many nodes in this process; the run, as one of a federation.

    Works in a notebook, too. Options are those of `covey.client.simulate`: `data_dir`, `processes`, `attacks`, `paths`,
    `staleness`, `device`, `events`, `engine` (`processes` or `ray`), `ray_address`, `on_progress`.

    A run of mode gossip has no coordinator, and no record of one: what came of each node is given, and of all of them.
    Its options are those of `covey.client.experiments.gossip.gossip_plan`, and `on_progress`.

    Raises:
        SpecError: It cannot work; the message says why.
    """
    known = parsed(spec, later=True)
    if not known.facts.coordinated:
        from covey.client.experiments.gossip import gossip_plan, unread_options
        from covey.client.experiments.gossip import simulate as run_gossip
        from covey.client.experiments.simulated import cluster_of

        given = {name: options.pop(name) for name in ("staleness", "events", "engine") if name in options}
        cluster_of(given.get("engine", "processes"), options.pop("ray_address", None))
        if unread := unread_options(**given):
            texts = [f"{option}: {why} (the run's mode is {known.mode})" for option, why in unread.items()]
            raise SpecError("; ".join(texts))
        watch = {name: options.pop(name) for name in ("on_progress",) if name in options}
        return run_gossip(gossip_plan(spec, nodes, **options), **watch)
    from covey.client.experiments.simulated import simulate as run_simulated

    done = run_simulated(spec, nodes, **options)
    return SimulatedRun(Connection(Target(done.data_dir)), done, nodes, options)


def local(nodes: int = 4, *, folder: str | Path | None = None) -> LocalFederation:
    """A real federation on this machine: a coordinator and nodes as processes, which end when it is closed.

    Args:
        nodes: How many; they are called node-1, node-2 and so on.
        folder: Where everything is kept; default: a temporary folder, which is deleted at the end.

    Raises:
        DaemonFailed: A daemon ended by itself; the message holds the end of its log.
    """
    with ExitStack() as stack:
        connection = stack.enter_context(local_daemons(nodes, folder=folder)).connect()
        stack.callback(connection.close)
        return LocalFederation(connection, stack.pop_all())
