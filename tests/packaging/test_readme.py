"""The README works: its shell blocks can be typed, and its three machines train, each in a network namespace."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from covey.cli.main import covey
from covey.spec import parse_toml
from covey.testing.launch.forks import forked_workers
from tests.packaging.readme import ROOT, Command, blocks, commands, first_run, three_machines

SHELL = [command for block in blocks("sh") for command in commands(block)]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
READY_S = 90.0


@pytest.mark.parametrize("command", SHELL, ids=lambda command: command.text[:60])
def test_a_command_can_be_typed(command: Command) -> None:
    subprocess.run(["bash", "-n"], input=command.text, text=True, check=True)
    text = re.sub(r"\s#.*$", "", command.text)
    words = [word for word in shlex.split(text) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    match words:
        case ["covey" | ".venv/bin/covey", *arguments]:
            typed(arguments)
        case ["make", target, *_]:
            assert re.search(rf"^{re.escape(target)}:", MAKEFILE, re.MULTILINE), f"make has no target {target}"
        case [program, *_] if "/" in program and not program.startswith(".venv"):
            assert os.access(ROOT / program, os.X_OK), f"{program} is not a program"
        case ["docker/testbed", "covey", *arguments]:
            typed(arguments)


def typed(arguments: list[str]) -> None:
    """See that a command of Covey's takes these arguments; it is not run."""
    found: click.Command = covey
    context = click.Context(found, info_name="covey")
    while isinstance(found, click.Group) and not (found.invoke_without_command and arguments[0].startswith("-")):
        name, *arguments = arguments
        inner = found.get_command(context, name)
        assert inner is not None, f"covey has no command {name}"
        found, context = inner, click.Context(inner, context, info_name=name)
    _, left, _ = found.make_parser(context).parse_args(list(arguments))
    assert not left, f"{left} is too much"


def test_runs_of_the_readme_can_be_read() -> None:
    runs = [block for block in blocks("toml") if re.search(r"^name = .*\n(\n|seed|\[task\])", block)]
    assert len(runs) >= 3
    for run in runs:
        parse_toml(run)
    assert parse_toml(first_run()).rounds.min_nodes == 2


@pytest.mark.processes
def test_the_notebook_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "agg")
    cell = next(block for block in blocks("python") if "covey.simulate" in block)
    short = cell.replace('"count": 20', '"count": 2').replace("nodes=4)", "nodes=4, processes=1)")
    assert len(short) > len(cell)
    known: dict[str, Any] = {}
    with forked_workers():
        exec(compile(short, "README.md", "exec"), known)
    assert (known["run"].state, len(known["run"].metrics())) == ("completed", 2)
    known["run"].close()
    assert set(known["weights"]) == {"0.weight", "0.bias", "2.weight", "2.bias"}


# -- three machines


def may_make_namespaces() -> str:
    """Why this machine cannot stand for three; empty: it can."""
    if shutil.which("ip") is None:
        return "needs the program ip (iproute2)"
    if not Path("/srv").is_dir():
        return "needs a folder /srv"
    name = f"covey-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"may not make network namespaces: {made.stderr.strip()}"
    tried = subprocess.run(
        ["ip", "netns", "exec", name, "mount", "--bind", "/srv", "/srv"], capture_output=True, text=True
    )
    subprocess.run(["ip", "netns", "del", name], check=True)
    return f"may not mount: {tried.stderr.strip()}" if tried.returncode else ""


class Machine:
    """One machine: a network namespace, with a /srv and an /etc/hosts of its own."""

    def __init__(self, name: str, folder: Path, coordinator: str) -> None:
        self.namespace = f"covey-{os.getpid()}-{name.lower()}"
        self.folder = folder
        (folder / "srv").mkdir(parents=True)
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{coordinator} train.example.org\n")
        self.daemons: list[subprocess.Popen[bytes]] = []
        ip("netns", "add", self.namespace)
        ip("-n", self.namespace, "link", "set", "lo", "up")

    def _command(self, text: str) -> list[str]:
        """A shell of this machine; its mounts are its own, as `ip netns exec` makes a mount namespace for it."""
        setup = 'mount --bind "$1/srv" /srv && mount --bind "$1/hosts" /etc/hosts && cd "$1" && eval "$2"'
        return ["ip", "netns", "exec", self.namespace, "sh", "-c", setup, "sh", str(self.folder), text]

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(self, text: str) -> str:
        """What a command prints; it must succeed."""
        ended = subprocess.run(
            self._command(text), capture_output=True, text=True, timeout=READY_S, env=self._environment
        )
        assert ended.returncode == 0, f"{text}\n{ended.stdout}{ended.stderr}{self.logs()}"
        return ended.stdout

    def start(self, text: str) -> None:
        """Start a daemon: `exec`, so that it is what gets the signal."""
        with (self.folder / f"daemon-{len(self.daemons)}.log").open("wb") as log:
            made = subprocess.Popen(self._command(f"exec {text}"), stdout=log, stderr=log, env=self._environment)
        self.daemons.append(made)

    def wait_for(self, words: str) -> None:
        """Wait until a daemon's log says something."""
        give_up_at = time.monotonic() + READY_S
        while words not in self.logs():
            assert self.daemons[-1].poll() is None, self.logs()
            assert time.monotonic() < give_up_at, f"no {words!r}:\n{self.logs()}"
            time.sleep(0.05)

    def logs(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("daemon-*.log")))

    def end(self) -> None:
        for daemon in self.daemons:
            daemon.terminate()
        for daemon in self.daemons:
            daemon.wait(READY_S)
        ip("netns", "del", self.namespace)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[dict[str, Machine]]:
    """C, with a cable to A and one to B."""
    reason = may_make_namespaces()
    if reason:
        pytest.skip(f"three machines: this one {reason}")
    made: dict[str, Machine] = {}
    try:
        for name, address in (("C", "10.77.1.1"), ("A", "10.77.1.1"), ("B", "10.77.2.1")):
            made[name] = Machine(name, tmp_path / name, address)
        for number, name in ((1, "A"), (2, "B")):
            node, hub, end = made[name].namespace, made["C"].namespace, f"to-{name.lower()}"
            ip("-n", hub, "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", node)
            for namespace, device, host in ((hub, end, 1), (node, "eth0", 2)):
                ip("-n", namespace, "addr", "add", f"10.77.{number}.{host}/24", "dev", device)
                ip("-n", namespace, "link", "set", device, "up")
        yield made
    finally:
        for machine in made.values():
            machine.end()


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_three_machines_step_by_step(machines: dict[str, Machine]) -> None:
    (machines["C"].folder / "run.toml").write_text(first_run())
    tokens = iter(("TOKEN_A", "TOKEN_B"))
    known: dict[str, str] = {}
    printed: list[str] = []
    for command in three_machines():
        machine, text = machines[command.machine], command.text
        for name, token in known.items():
            text = text.replace(name, token)
        if " start " in text:
            machine.start(text)
            machine.wait_for("ready" if " coordinator " in text else '"connected"')
            continue
        printed.append(machine.run(text))
        if " token " in text:
            known[next(tokens)] = printed[-1].strip()
    watched, exported, audited = printed[-3:]
    assert "completed" in watched
    assert "written to model.safetensors" in exported
    assert audited
    shown = json.loads(machines["C"].run("covey run show first --data-dir /srv/covey --json"))
    assert (shown["state"], shown["rounds_committed"]) == ("completed", 5)
    updates = json.loads(machines["C"].run("covey round show first 5 --data-dir /srv/covey --json"))["updates"]
    assert [(update["node"], update["verdict"]) for update in updates] == [
        ("clinic-a", "accepted"),
        ("clinic-b", "accepted"),
    ]
