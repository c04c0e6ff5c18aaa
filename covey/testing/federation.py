"""A real federation on this machine: coordinator and nodes as child processes, driven as a user would.

    with Federation(tmp_path, nodes=4) as federation:
        federation.start()
        run = federation.submit(spec_toml)
        federation.kill_coordinator()
        federation.start_coordinator()
        assert federation.wait(run)["state"] == "completed"

Whatever happens in the body, at the end every process that it started is gone, daemons and workers alike. A body that
ends well, but started a daemon with a fault point (`COVEY_FAULTS`) that was never passed, fails: it has tested nothing.
Logs stay in `root/logs`, and their ends are added to an error that leaves the body.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from covey.errors import CoveyError
from covey.testing.launch.forks import run_covey
from covey.testing.launch.ports import free_addresses
from covey.testing.launch.processes import STOP_S, Daemon, children_of, end_all, wait_until

if TYPE_CHECKING:
    from covey.testing.admin import AdminClient

R = TypeVar("R")
MARK = "COVEY_FEDERATION"
TERMINAL = frozenset({"completed", "failed", "stopped"})
READY_S = 60.0


class FederationError(CoveyError):
    """The federation did not do what was asked of it; the message holds the ends of the logs."""


class Federation:
    """Daemons of one federation, by role: `coordinator` and `nodes[i]` (None while not started).

    Args:
        root: A folder for everything: `coordinator/`, `nodes/NAME/`, `logs/`; may hold an earlier federation.
        nodes: How many nodes; their names are n0, n1, ... with as many digits as the last one needs.
        store_url: The coordinator's store; default: SQLite in its data directory.
        env: Added to the environment of every daemon; of what is not usual, its worker has only what it is told to
            have (`--worker-env`, in node.toml `[worker] environment`).
        fork: Whether daemons may be copies of a process that has imported everything, where that is enabled
            (`covey.testing.launch.forks`); else they are executed as a user's.
    """

    def __init__(
        self,
        root: Path,
        nodes: int = 4,
        *,
        store_url: str | None = None,
        env: Mapping[str, str] | None = None,
        fork: bool = True,
    ) -> None:
        self.root, self.store_url, self._fork = root, store_url, fork
        width = len(str(max(nodes - 1, 0)))
        self.names = tuple(f"n{index:0{width}}" for index in range(nodes))
        self.coordinator: Daemon | None = None
        self.nodes: list[Daemon | None] = [None] * nodes
        self.coordinator_address, self.enrol_address = free_addresses(2)
        self._mark = uuid.uuid4().hex
        self._env = {**(env or {}), MARK: self._mark, "PYTHONUNBUFFERED": "1"}
        self._admin: AdminClient | None = None
        self._idle_drills: list[str] = []

    # -- places

    @property
    def coordinator_dir(self) -> Path:
        """The coordinator's data directory."""
        return self.root / "coordinator"

    def node_dir(self, index: int) -> Path:
        """A node's data directory."""
        return self.root / "nodes" / self.names[index]

    def _log(self, name: str) -> Path:
        folder = self.root / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.log"

    # -- starting

    def __enter__(self) -> Federation:
        self.root.mkdir(parents=True, exist_ok=True)
        return self

    def start(self, *, python: Sequence[str] = ()) -> Federation:
        """Coordinator, then every node, joined and connected; `python` as in `start_coordinator`."""
        self.start_coordinator(python=python)
        self.join()
        for index in range(len(self.nodes)):
            self.start_node(index)
        self.wait_connected(len(self.nodes))
        return self

    def start_coordinator(
        self,
        *,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        python: Sequence[str] = (),
        under: Sequence[str] = (),
        ready_s: float = READY_S,
    ) -> Daemon:
        """Start the coordinator, on the addresses it had before if it ran before, and wait until it answers.

        Args:
            env: Added to its environment (for example `COVEY_FAULTS`).
            options: Further options of `covey coordinator start`.
            python: Options for its interpreter, before the program (`-m cProfile -o FILE`).
            under: A program, with its arguments, that becomes the daemon in a moment (`prlimit --nofile=64`).
            ready_s: How long it may take.
        """
        where = ["--data-dir", self.coordinator_dir, "--listen", self.coordinator_address]
        where += ["--enrol-listen", self.enrol_address]
        if self.store_url:
            where += ["--store", self.store_url]
        command = _command(["coordinator", "start", *where, *options], python)
        self.coordinator = self._spawn("coordinator", [*under, *command], env)
        self.wait_ready(ready_s)
        return self.coordinator

    def restart_coordinator(self, **options: Any) -> Daemon:
        """Stop the coordinator as an operator would (SIGTERM), and start it again (same options)."""
        self.stop_coordinator()
        return self.start_coordinator(**options)

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Wait until the coordinator wrote its addresses and answers over mutual TLS."""
        daemon = self._running_coordinator()
        self.until(self._announced, timeout_s, "the coordinator did not become ready")
        where = json.loads((self.coordinator_dir / "coordinator.json").read_text())
        self.coordinator_address, self.enrol_address = where["listen"], where["enrol"]
        self._close_admin()
        self.until(self._answers, timeout_s, f"the coordinator (process {daemon.pid}) does not answer")

    def _announced(self) -> bool:
        try:
            announced = json.loads((self.coordinator_dir / "coordinator.json").read_text())
        except (FileNotFoundError, ValueError):  # or what a disk that failed has left of it
            return False
        return bool(announced["pid"] == self._running_coordinator().pid)

    def _answers(self) -> bool:
        try:
            self.admin.status()
        except ConnectionError:
            return False
        return True

    def join(self, indices: Collection[int] | None = None) -> None:
        """Enrol nodes that have no identity yet (default: all), each with a token of its own."""
        from covey.node.membership.enrolment import join

        for index in range(len(self.nodes)) if indices is None else indices:
            if not (self.node_dir(index) / "identity").exists():
                join(self.admin.create_token(self.names[index]), self.node_dir(index))

    def start_node(
        self,
        index: int,
        *,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        under: Sequence[str] = (),
    ) -> Daemon:
        """Start an enrolled node; it need not be connected when this returns.

        Args:
            index: Which one.
            env: Added to its environment.
            options: Further options of `covey node start`.
            under: As in `start_coordinator`.
        """
        command = _command(["node", "start", "--data-dir", self.node_dir(index), *options])
        daemon = self.nodes[index] = self._spawn(self.names[index], [*under, *command], env)
        return daemon

    def wait_connected(self, count: int, timeout_s: float = READY_S) -> None:
        """Wait until exactly so many nodes have a session."""
        self.until(lambda: self._count_connected() == count, timeout_s, f"there were never {count} nodes connected")

    def _count_connected(self) -> int:
        return int(self.ask(lambda admin: admin.status())["nodes_connected"])

    def _spawn(self, name: str, command: Sequence[str], env: Mapping[str, str] | None) -> Daemon:
        whole = {**os.environ, **self._env, **(env or {})}
        for earlier in self.daemons():
            if earlier.name == name:
                self._idle_drills += _points_not_passed(earlier)
        return Daemon(name, command, self._log(name), whole, may_die="COVEY_FAULTS" in whole, fork=self._fork)

    # -- processes

    def daemons(self) -> Iterator[Daemon]:
        """Every daemon that was started, the coordinator first."""
        yield from (daemon for daemon in (self.coordinator, *self.nodes) if daemon is not None)

    def node(self, index: int) -> Daemon:
        """A started node."""
        daemon = self.nodes[index]
        if daemon is None:
            raise FederationError(f"node {self.names[index]} was not started")
        return daemon

    def _running_coordinator(self) -> Daemon:
        if self.coordinator is None:
            raise FederationError("the coordinator was not started")
        return self.coordinator

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the living daemons by name (`coordinator`, `n0`, ...)."""
        return {daemon.name: daemon.pid for daemon in self.daemons() if daemon.alive}

    @property
    def worker_pids(self) -> dict[str, int]:
        """Process ids of the living daemons' workers by the daemon's name."""
        pids = self.pids
        children = children_of(*pids.values())
        return {name: children[pid][-1] for name, pid in pids.items() if children[pid]}

    def kill_coordinator(self) -> None:
        """SIGKILL, as a power cut."""
        self._running_coordinator().kill()

    def kill_node(self, index: int) -> None:
        """SIGKILL, as a power cut."""
        self.node(index).kill()

    def kill_worker(self, name: str) -> int:
        """SIGKILL the worker of a daemon, by the daemon's name; the process id it had."""
        pid = self.worker_pids[name]
        os.kill(pid, signal.SIGKILL)
        return pid

    def stop_coordinator(self, timeout_s: float = STOP_S) -> int:
        """SIGTERM and wait; the exit code."""
        return self._stop(self._running_coordinator(), timeout_s)

    def stop_node(self, index: int, timeout_s: float = STOP_S) -> int:
        """SIGTERM and wait; the exit code."""
        return self._stop(self.node(index), timeout_s)

    def _stop(self, daemon: Daemon, timeout_s: float) -> int:
        daemon.terminate()
        return daemon.wait(timeout_s)

    # -- asking

    @property
    def admin(self) -> AdminClient:
        """The coordinator's admin service, in this process; see `ask` for calls while it may be away."""
        if self._admin is None:
            from covey.testing.admin import AdminClient

            self._admin = AdminClient(self.coordinator_address, self.coordinator_dir / "admin")
        return self._admin

    def ask(self, question: Callable[[AdminClient], R], timeout_s: float = READY_S) -> R:
        """Ask the coordinator; while it is alive but cannot be reached, ask again."""
        give_up_at = time.monotonic() + timeout_s
        while True:
            try:
                return question(self.admin)
            except ConnectionError as error:
                self._check_alive()
                if time.monotonic() > give_up_at or not self._running_coordinator().alive:
                    raise self._failure(f"the coordinator cannot be reached: {error}") from error
            time.sleep(0.05)

    def submit(self, spec_toml: str) -> str:
        """Submit a run; its id."""
        return self.ask(lambda admin: admin.submit(spec_toml))

    def show(self, run: str) -> dict[str, Any]:
        """A run, with the fields of `covey run show --json`."""
        return self.ask(lambda admin: admin.run(run))

    def rounds(self, run: str) -> list[dict[str, Any]]:
        """A run's rounds, with the fields of `covey round list --json`."""
        return self.ask(lambda admin: admin.rounds(run))

    def wait(
        self, run: str, states: Collection[str] = ("completed",), timeout_s: float = 60.0, *, poll_s: float = 0.1
    ) -> dict[str, Any]:
        """Wait until a run is in one of `states`; the run then.

        Raises:
            FederationError: Time is up, it ended in another state, or a daemon died that nobody killed.
        """
        seen: dict[str, Any] = {}

        def arrived() -> bool:
            seen.update(self.show(run))
            if seen["state"] in TERMINAL and seen["state"] not in states:
                raise self._failure(f"run {run} is {seen['state']}: {seen['reason']}")
            return seen["state"] in states

        self.until(arrived, timeout_s, f"run {run} did not become {' or '.join(states)}", poll_s, seen)
        return seen

    def wait_round(self, run: str, number: int, timeout_s: float = 60.0) -> None:
        """Wait until a round is committed."""
        self.until(
            lambda: int(self.show(run)["rounds_committed"]) >= number, timeout_s, f"round {number} was not committed"
        )

    def cli(self, *arguments: object, timeout_s: float = 60.0, check: bool = True) -> str:
        """Run a `covey` command in a process of its own; what it printed.

        Raises:
            FederationError: It failed (with `check`); the message holds its output.
        """
        env = {**os.environ, **self._env}
        done = run_covey(arguments, env=env, timeout_s=timeout_s)
        if check and done.returncode != 0:
            text = " ".join(map(str, arguments))
            raise FederationError(f"covey {text}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    # -- failing and ending

    def until(
        self,
        condition: Callable[[], bool],
        timeout_s: float,
        failure: str,
        poll_s: float = 0.02,
        seen: Mapping[str, Any] | None = None,
    ) -> None:
        """Poll until a condition holds; the error holds `failure` and the ends of the logs."""

        def alive_and_met() -> bool:
            self._check_alive()
            return condition()

        if not wait_until(alive_and_met, timeout_s, poll_s=poll_s):
            state = f" (last seen: {seen['state']}, {seen['reason']!r})" if seen else ""
            raise self._failure(f"{failure} within {timeout_s:g} s{state}")

    def _check_alive(self) -> None:
        for daemon in self.daemons():
            if not daemon.alive and not daemon.may_die:
                raise self._failure(f"{daemon.name} ended by itself with exit code {daemon.exit_code}")

    def _failure(self, message: str) -> FederationError:
        return FederationError(f"{message}\n{self.log_tails()}")

    def log_tails(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"--- {daemon.name}: {daemon.log}\n{daemon.tail()}" for daemon in self.daemons())

    def close(self) -> list[str]:
        """End everything: SIGTERM, then SIGKILL what did not end; a line for each that had to be killed."""
        self._close_admin()
        return end_all(list(self.daemons()), MARK, self._mark)

    def _close_admin(self) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = self.close() + self._idle_drills
        for daemon in self.daemons():
            left += _points_not_passed(daemon)
        if error is None and left:
            raise self._failure("; ".join(left))
        if error is not None and not isinstance(error, FederationError):
            error.add_note(self.log_tails())


def _points_not_passed(daemon: Daemon) -> list[str]:
    points = daemon.points_not_passed
    return [f"{daemon.name} was started with the fault point {point}, never passed" for point in points]


def _command(arguments: Sequence[object], python: Sequence[str] = ()) -> list[str]:
    return [sys.executable, *python, "-m", "covey.cli.main", *map(str, arguments)]
