"""The compose testbed, as a person would run it: the files in docker/, a project name and a port of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import uuid
from pathlib import Path

from covey.errors import CoveyError
from covey.testing.admin import AdminClient
from covey.testing.launch.processes import wait_until

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
IMAGE = "covey:testbed-test"
NODES = 4


class TestbedError(CoveyError):
    """The testbed did not do what was asked of it; the message holds the end of the containers' logs."""

    __test__ = False


def engine_missing() -> str:
    """Why there is no testbed here; empty if there can be one."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    for command in (["docker", "compose", "version"], ["docker", "info"]):
        if subprocess.run(command, capture_output=True, timeout=60).returncode != 0:
            return f"no Docker engine with Compose v2 answers ({' '.join(command)})"
    return ""


def free_port() -> int:
    """A port of this machine that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def docker(*arguments: object, timeout_s: float = 120.0, check: bool = True, stdin: str | None = None) -> str:
    """Run a docker command; what it printed."""
    return _run(["docker", *map(str, arguments)], timeout_s, check, stdin, dict(os.environ))


def _run(command: list[str], timeout_s: float, check: bool, stdin: str | None, env: dict[str, str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, input=stdin, env=env)
    if check and done.returncode != 0:
        raise TestbedError(
            f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
    return done.stdout if check else done.stdout + done.stderr


def data_volume(container: str) -> str:
    """The volume with a daemon's data directory."""
    mounts = json.loads(docker("inspect", container))[0]["Mounts"]
    return str(next(m["Name"] for m in mounts if m["Destination"] == "/var/lib/covey"))


class Testbed:
    """One federation in containers; everything of it is gone at the end."""

    __test__ = False

    def __init__(self, folder: Path) -> None:
        self.project = f"covey-test-{uuid.uuid4().hex[:8]}"
        self.port, self.prometheus_port = free_port(), free_port()
        self.identity = folder / "admin"
        self.server = f"127.0.0.1:{self.port}"
        self.image = IMAGE
        self._admin: AdminClient | None = None

    # -- compose

    def compose(
        self,
        *arguments: object,
        overlays: tuple[str, ...] = (),
        profile: str = "",
        image: str = "",
        timeout_s: float = 240.0,
        check: bool = True,
        stdin: str | None = None,
    ) -> str:
        """Run a `docker compose` command on the testbed's files."""
        names = ("compose.yml", *overlays)
        files = [part for name in names for part in ("-f", str(DOCKER / name))]
        env = {
            **os.environ,
            "COVEY_IMAGE": image or self.image,
            "COVEY_PORT": str(self.port),
            "COVEY_PROMETHEUS_PORT": str(self.prometheus_port),
            "COMPOSE_PROFILES": profile,
        }
        command = ["docker", "compose", "-p", self.project, *files, *map(str, arguments)]
        return _run(command, timeout_s, check, stdin, env)

    def up(self) -> None:
        """Start everything, wait until it is healthy, and take the admin's identity."""
        self.compose("up", "--detach", "--wait")
        self.compose("cp", "coordinator:/var/lib/covey/admin", self.identity)
        self.wait_connected(NODES)

    def down(self) -> None:
        """Stop and delete everything, volumes too."""
        self.close_admin()
        self.compose(
            "down",
            "--volumes",
            "--remove-orphans",
            "--timeout",
            "2",
            overlays=("compose.attack.yml",),
            profile="dashboards",
            check=False,
        )

    def containers(self, service: str) -> list[str]:
        """Ids of the running containers of a service."""
        return self.compose("ps", "--quiet", service, overlays=("compose.attack.yml",)).split()

    def kill(self, container: str) -> None:
        """SIGKILL, and the engine does not start it again by itself."""
        docker("kill", container)

    def name_of(self, container: str) -> str:
        """The node that a container is."""
        found = docker("exec", container, "cat", "/var/lib/covey/identity/federation.json")
        return str(json.loads(found)["name"])

    def logs(self) -> str:
        """The end of every container's log."""
        return self.compose("logs", "--no-color", "--tail", "15", overlays=("compose.attack.yml",), check=False)

    # -- the federation

    @property
    def admin(self) -> AdminClient:
        """The admin service, through the port that is published on this machine."""
        if self._admin is None:
            self._admin = AdminClient(self.server, self.identity)
        return self._admin

    def close_admin(self) -> None:
        """Close the connection."""
        if self._admin is not None:
            self._admin.close()
        self._admin = None

    def covey(self, *arguments: object, check: bool = True, timeout_s: float = 60.0) -> str:
        """A `covey` command on this machine, outside of the containers, that asks the coordinator."""
        where = ["--server", self.server, "--identity", str(self.identity)]
        command = [sys.executable, "-m", "covey.cli.main", *map(str, arguments), *where]
        return _run(command, timeout_s, check, None, dict(os.environ))

    def until(self, condition, timeout_s: float, what: str, poll_s: float = 0.1) -> None:
        """Wait for something; while the coordinator is away, nothing is true."""

        def met() -> bool:
            with contextlib.suppress(ConnectionError):
                return bool(condition())
            return False

        if not wait_until(met, timeout_s, poll_s=poll_s):
            raise TestbedError(f"{what}: not within {timeout_s:g} s\n{self.logs()}")

    def connected(self) -> set[str]:
        """Nodes that are connected now."""
        return {node["node"] for node in self.admin.nodes() if node["state"] == "connected"}

    def wait_connected(self, count: int, timeout_s: float = 90.0) -> None:
        """Wait until so many nodes are connected."""
        self.until(lambda: len(self.connected()) == count, timeout_s, f"{count} connected nodes")

    def wait_round(self, run: str, number: int, timeout_s: float = 90.0) -> None:
        """Wait until a round collects updates: its nodes train."""

        def open_now() -> bool:
            return any(r["round"] == number and r["state"] == "collecting" for r in self.admin.rounds(run))

        self.until(open_now, timeout_s, f"round {number}", poll_s=0.02)

    def wait(self, run: str, timeout_s: float = 180.0) -> dict:
        """Wait until a run has ended; it must be completed."""
        seen: dict = {}

        def ended() -> bool:
            seen.update(self.admin.run(run))
            return seen["state"] in ("completed", "failed", "stopped")

        self.until(ended, timeout_s, f"the end of run {run} (last seen: {seen})")
        if seen["state"] != "completed":
            raise TestbedError(f"run {run} is {seen['state']}: {seen['reason']}\n{self.logs()}")
        return seen
