"""The example plug-ins are installed as a user would, pass the conformance suites, and train a model."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from covey.testing.federation import Federation

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "plugins"
NODES = 4


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plug-ins installed in it, built from a copy so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("plugins")
    ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    source = shutil.copytree(EXAMPLE, folder / "source", ignore=ignored)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(folder / "site"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def environment(site: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])}


def test_they_pass_the_conformance_suites(site: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "test_plugins.py")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=150, cwd=site, env={**os.environ, **environment(site)}
    )
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 20


@pytest.fixture(scope="module")
def federation(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with Federation(tmp_path_factory.mktemp("federation"), NODES, env=environment(site)) as made:
        yield made.start()


def test_they_are_found_by_name(federation: Federation) -> None:
    found = {(p["kind"], p["name"]): p["package"] for p in json.loads(federation.cli("plugins", "--json"))}
    names = {("aggregator", "example-meamed"), ("codec", "int16"), ("local-optimizer", "lion")}
    names |= {("protocol", "neighbours-median"), ("mixing", "careful")}
    names |= {("outgoing-filter", "known-names"), ("tracker", "lines")}
    assert {key for key, package in found.items() if package == "covey-example-plugins"} == names


def test_a_run_with_them_learns(federation: Federation) -> None:
    run = federation.submit((EXAMPLE / "run.toml").read_text())
    shown = federation.wait(run)
    assert shown["rounds_committed"] == 5
    assert shown["metrics"]["accuracy"] > 0.7
    updates = federation.admin.round(run, 5)["updates"]
    assert [u["verdict"] for u in updates] == ["accepted"] * NODES
    d = 64 * 64 + 64 + 64 * 10 + 10
    assert {u["bytes"] for u in updates} == {4 + 2 * d}


def test_a_gossip_run_with_them_learns(site: Path, tmp_path: Path) -> None:
    gossip = 'steps = 3\nprotocol = { name = "neighbours-median", options = { pull = 0.5 } }\n'
    spec = (
        f'name = "g"\nmode = "gossip"\n[task]\nname = "digits"\n[gossip]\n{gossip}topology = {{ name = "complete" }}\n'
    )
    (tmp_path / "gossip.toml").write_text(spec)
    command = [sys.executable, "-m", "covey", "gossip", "simulate", str(tmp_path / "gossip.toml"), "--nodes", "3"]
    done = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, timeout=150, env={**os.environ, **environment(site)}
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["mass"]["exact"], outcome["mass"]["delivered"]) == (True, 3 * 3 * 2)
    assert outcome["metrics"]["accuracy"] > 0.5


@pytest.mark.parametrize(
    "name",
    [
        "meamed.py",
        "int16.py",
        "lion.py",
        "neighbours_median.py",
        "careful.py",
        "lines.py",
        "test_plugins.py",
        "pyproject.toml",
    ],
)
def test_the_documentation_shows_just_these_files(name: str) -> None:
    assert (EXAMPLE / name).read_text() in (ROOT / "docs" / "plugins.md").read_text()
