"""Real nodes of a gossip run on this machine, without a coordinator: an authority, identities, a peers file, processes.

    with GossipNodes(tmp_path, SPEC, nodes=3) as nodes:
        nodes.start_all()
        nodes.kill(1)
        nodes.start(1)
        nodes.wait()                            # until every node has done its steps
        assert nodes.audit()["exact"]

Between a node and those that call it stands a relay where `relays` is true: `nodes.relay(2).partition()`. With
`links=True` relays of their own stand between each two nodes: `for link in nodes.links([0], [1, 2]): link.partition()`.
Whatever happens in the body, at the end every process is gone.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import sys
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any

from covey.client import authority
from covey.client.gossip_nodes import read_node
from covey.errors import CoveyError, NotFound
from covey.node.gossip.folders import newest
from covey.node.gossip.record.database import FILE
from covey.testing.launch.forking import COMMAND
from covey.testing.launch.forks import run_covey
from covey.testing.launch.ports import free_addresses
from covey.testing.launch.processes import Daemon, children_of, end_all, wait_until
from covey.testing.relay import RelayThread

MARK = "COVEY_FEDERATION"
READY_S = 60.0


class GossipNodes:
    """The nodes of one run: `daemons[i]` (None while not started), named n0, n1, ...

    Args:
        root: A folder for everything.
        spec: The run's specification, TOML.
        nodes: How many.
        relays: Whether a relay stands before each node.
        links: Whether a relay stands between each two nodes, one each way; each node has a peers file of its own then.
        callers: Nodes without an address: they only call.
        relayed: Nodes without an open port that wait at a relay (`covey relay start`), where others call them.
        pause_s: How long nodes bear a pause of each other before they suspect it; None: as they do without settings.
        fork: Whether nodes may be copies of a process that has imported everything; else they are executed.
    """

    def __init__(
        self,
        root: Path,
        spec: str,
        nodes: int,
        *,
        relays: bool = False,
        links: bool = False,
        callers: Collection[int] = (),
        relayed: Collection[int] = (),
        pause_s: float | None = None,
        fork: bool = True,
    ) -> None:
        self.root, self.names = root, [f"n{index}" for index in range(nodes)]
        self.spec, self.peers = root / "run.toml", root / "peers.toml"
        self.daemons: list[Daemon | None] = [None] * nodes
        self._fork, self._pause_s = fork, pause_s
        self._callers, self._relayed, self._exits, self._mark = callers, relayed, ExitStack(), uuid.uuid4().hex
        self._meeting: Daemon | None = None
        self._meeting_address = ""
        self._addresses = free_addresses(nodes)
        self._relays = [RelayThread(address) for address in self._addresses] if relays else []
        pairs = itertools.permutations(range(nodes), 2) if links else ()
        self._links = {(caller, called): RelayThread(self._addresses[called]) for caller, called in pairs}
        root.mkdir(parents=True, exist_ok=True)
        self.spec.write_text(spec)

    def __enter__(self) -> GossipNodes:
        for relay in (*self._relays, *self._links.values()):
            self._exits.enter_context(relay)
        authority.init(self.root / "ca")
        if self._relayed:
            self._open_meeting()
        issued = [
            authority.issue(self.root / "ca", name, self.folder(index) / "identity").fingerprint
            for index, name in enumerate(self.names)
        ]
        for index in range(len(self.names)) if self._pause_s is not None else ():
            (self.folder(index) / "node.toml").write_text(f"[peers]\npause_s = {self._pause_s}\n")
        self.peers.write_text(self._peers_text(issued))
        for caller in range(len(self.names)) if self._links else ():
            self._peers_of(caller).write_text(self._peers_text(issued, caller))
        return self

    def _peers_text(self, fingerprints: Sequence[str], caller: int | None = None) -> str:
        """The peers file; a caller's own names the relays on its ways to the others."""
        entries = []
        for index, name in enumerate(self.names):
            link = self._links.get((index if caller is None else caller, index))
            address = link.address if link is not None else self.address(index)
            line = "" if index in self._callers else f'address = "{address}"\n'
            entries.append(f'[[peers]]\nname = "{name}"\n{line}fingerprint = "{fingerprints[index]}"\n')
        return "\n".join(entries)

    def _peers_of(self, index: int) -> Path:
        return self.root / f"peers-{self.names[index]}.toml" if self._links else self.peers

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for daemon in filter(None, self.daemons):
                error.add_note(f"the log of {daemon.name} ends:\n{daemon.tail()}")
        end_all([daemon for daemon in (*self.daemons, self._meeting) if daemon is not None], MARK, self._mark)
        self._exits.close()

    def _open_meeting(self) -> None:
        """Start the relay that nodes wait at."""
        certificate = self.root / "ca" / "authority.crt"
        self._meeting, self._meeting_address = relay_daemon(self.root, certificate, self._environment())

    def _environment(self) -> dict[str, str]:
        return {**os.environ, MARK: self._mark, "PYTHONUNBUFFERED": "1"}

    def folder(self, index: int) -> Path:
        """A node's data directory."""
        return self.root / self.names[index]

    def address(self, index: int) -> str:
        """Where others call a node."""
        if index in self._relayed:
            return self._meeting_address
        return self._relays[index].address if self._relays else self._addresses[index]

    def move(self, index: int) -> None:
        """Another address for a node that is down; all peers files say so from now on."""
        before, self._addresses[index] = self._addresses[index], *free_addresses(1)
        self.peers.write_text(self.peers.read_text().replace(before, self._addresses[index]))

    def relay(self, index: int) -> RelayThread:
        """What stands before a node."""
        return self._relays[index]

    def links(self, some: Collection[int], others: Collection[int]) -> list[RelayThread]:
        """What stands between some nodes and others, both ways."""
        sides = {(a, b) for a in some for b in others} | {(b, a) for a in some for b in others}
        return [link for pair, link in self._links.items() if pair in sides]

    def start(
        self,
        index: int,
        *,
        env: Mapping[str, str] | None = None,
        options: Collection[str] = (),
        peers: Path | None = None,
    ) -> Daemon:
        """Start a node, or start it again; with a peers file of its own, where it is given one."""
        listen = [] if index in self._callers else ["--listen", self._addresses[index]]
        if index in self._relayed:
            listen = ["--relay", self._meeting_address]
        where = ["--data-dir", self.folder(index), "--peers", peers or self._peers_of(index)]
        command = ["gossip", "start", self.spec, *where, *listen]
        whole = {**self._environment(), **(env or {})}
        log = self.root / f"{self.names[index]}.log"
        texts = _command([*command, "--device", "cpu", *options])
        may_die = "COVEY_FAULTS" in whole
        daemon = self.daemons[index] = Daemon(self.names[index], texts, log, whole, may_die=may_die, fork=self._fork)
        return daemon

    def start_all(self, **options: Any) -> None:
        """Start every node."""
        for index in range(len(self.names)):
            self.start(index, **options)

    def daemon(self, index: int) -> Daemon:
        """A started node."""
        daemon = self.daemons[index]
        if daemon is None:
            raise CoveyError(f"{self.names[index]} was not started")
        return daemon

    def workers(self, which: Collection[int]) -> list[int]:
        """Process ids of some nodes' workers: while they stand still (`standing_still`), their nodes make no step."""
        return [children_of(pid)[pid][-1] for pid in (self.daemon(index).pid for index in which)]

    def kill(self, index: int) -> None:
        """SIGKILL, as a power cut."""
        self.daemon(index).kill()

    def wait(self, timeout_s: float = 200.0) -> None:
        """Wait until every started node has ended, in order."""
        for daemon in filter(None, self.daemons):
            code = daemon.wait(timeout_s)
            if code != 0:
                raise CoveyError(f"{daemon.name} ended with exit code {code}; its log ends:\n{daemon.tail()}")

    def models(self) -> list[str]:
        """Each node's newest model on record (model_sha256)."""
        return [read_node(self.folder(index)).model_sha256 for index in range(len(self.names))]

    def steps(self, index: int) -> int:
        """How many steps a node has on record; 0 before it has a record. Only that is read: it is asked often."""
        try:
            record = newest(self.folder(index), None) / FILE
            with closing(sqlite3.connect(f"file:{record}?mode=ro", uri=True, timeout=READY_S)) as connection:
                row = connection.execute("SELECT step FROM snapshot").fetchone()
        except (NotFound, sqlite3.OperationalError):  # of the second kind: its tables are not made yet
            return 0
        return 0 if row is None else int(row[0])

    def until_step(self, index: int, step: int, timeout_s: float = 60.0) -> None:
        """Wait until a node has done so many steps."""
        if not wait_until(lambda: self.steps(index) >= step, timeout_s):
            raise CoveyError(f"{self.names[index]} did not come to step {step}:\n{self.daemon(index).tail()}")

    def audit(self) -> dict[str, Any]:
        """`covey gossip audit --json` of all nodes."""
        folders = [self.folder(index) for index in range(len(self.names))]
        report: dict[str, Any] = json.loads(self.cli("gossip", "audit", *folders, "--json"))
        return report

    def cli(self, *arguments: object, timeout_s: float = 200.0) -> str:
        """Run a `covey` command; what it printed.

        Raises:
            CoveyError: It failed.
        """
        done = run_covey(arguments, env={**os.environ, MARK: self._mark}, timeout_s=timeout_s)
        if done.returncode != 0:
            text = " ".join(map(str, arguments))
            raise CoveyError(f"covey {text}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout


def relay_daemon(folder: Path, certificate: Path, env: Mapping[str, str]) -> tuple[Daemon, str]:
    """Start a relay (`covey relay start`) on a free port, and wait until it listens.

    Args:
        folder: For its log, and for the file in which it says where it listens.
        certificate: Of the authority whose nodes it serves.
        env: The whole environment.

    Returns:
        The relay, and its address.

    Raises:
        CoveyError: It did not start; it is gone.
    """
    announced = folder / "relay.json"
    options = ["--authority", certificate, "--announce", announced]
    command = _command(["relay", "start", "--listen", "127.0.0.1:0", *options])
    relay = Daemon("relay", command, folder / "relay.log", env, may_die=False)
    if not wait_until(announced.exists, READY_S):
        relay.kill()
        raise CoveyError(f"the relay did not start:\n{relay.tail()}")
    return relay, json.loads(announced.read_text())["listen"]


def _command(arguments: Collection[object]) -> list[str]:
    return [sys.executable, "-m", COMMAND, *map(str, arguments)]


def simulated(folder: Path, spec: str, nodes: int, *options: object) -> Any:
    """The outcome (`covey gossip simulate --json`) of the same run in one process, to compare real nodes with.

    Args:
        folder: For the specification, and what the simulation leaves.
        spec: The run's specification, TOML.
        nodes: How many.
        options: Further ones of the command.

    Raises:
        CoveyError: It failed.
    """
    path, left = folder / "simulated.toml", folder / "simulated"
    path.write_text(spec)
    command = ["gossip", "simulate", path, "--nodes", nodes, "--processes", 1, "--data-dir", left, *options, "--json"]
    done = run_covey(command, timeout_s=200)
    if done.returncode != 0:
        raise CoveyError(f"the simulation failed: exit code {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)
