"""Every `covey` command in the manifests, the batch script and the units is one that this version takes."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from covey.cli.main import covey

DOCKER = Path(__file__).parents[3] / "docker"
MANIFESTS = sorted((DOCKER / "kubernetes").glob("*.yaml"))
SCRIPTS = sorted((DOCKER / "slurm").glob("*.sbatch"))
UNITS = sorted((DOCKER / "systemd").glob("*.service"))
FILLED_IN = {
    "$COVEY_OPTIONS": "",
    "${ADVERTISE}": "train.example.org:7400",
    "$state.token": "join.token",
    "$state": "d",
    "/run/covey/authority.crt": __file__,
    "${SPEC}": __file__,
    "${PEERS}": __file__,
}
"""What differs between machines, and something that it could be: where a file has to be there, this one."""


def commands(path: Path) -> list[list[str]]:
    """Those of a file, without the word `covey`. Of a container's `args` the image's entry point is the program."""
    text = path.read_text()
    for variable, value in FILLED_IN.items():
        text = text.replace(variable, value)
    if path in MANIFESTS:
        lists = re.findall(r"^ *(?:- )?(?:args|exec: {command): \[(.*)\]}?$", text, re.MULTILINE)
        words = [[word.strip().strip('"') for word in line.split(",")] for line in lists]
        return [line[1:] if line[0] == "covey" else line for line in words]
    lines = re.findall(r"^(?:ExecStart=/opt/covey/bin/)?covey (.*?)(?: &)?$", text, re.MULTILINE)
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("path", [*MANIFESTS, *SCRIPTS, *UNITS], ids=lambda path: path.name)
def test_the_command_line_takes_it(path: Path) -> None:
    found = commands(path)
    assert len(found) >= (4 if path in MANIFESTS else 1)
    for words in found:
        command: click.Command = covey
        context = click.Context(covey, info_name="covey")
        while isinstance(command, click.Group):
            name, resolved, words = command.resolve_command(context, words)
            assert resolved is not None
            command, context = resolved, click.Context(resolved, parent=context, info_name=name)
        command.make_context(str(context.info_name), words, parent=context.parent)


def test_every_command_is_found() -> None:
    """As many as the files hold of what starts one."""
    for path in MANIFESTS:
        text = path.read_text()
        assert len(commands(path)) == text.count("args: [") + text.count("command: [")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_shell_reads_it(path: Path) -> None:
    assert subprocess.run(["bash", "-n", path], capture_output=True).stderr == b""
    head = path.read_text().split("set -euo", 1)[0]
    assert "#SBATCH --requeue" in head
    assert "#SBATCH --signal=B:USR1@" in head  # what the trap waits for


@pytest.mark.parametrize("version", ["1.28", "1.37"])
def test_kubernetes_takes_it(version: str) -> None:
    """By its published schema; strictly: a field that it does not know is an error."""
    pytest.importorskip("kubernetes_validate", reason="needs the package kubernetes-validate, of 22 MB: not in dev")
    checker, yaml = importlib.import_module("kubernetes_validate"), importlib.import_module("yaml")
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            checker.validate(document, version, strict=True)
