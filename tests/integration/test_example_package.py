"""The example is installed as a user would, allowed by the nodes' operators, and learns from the real data."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from covey.testing.federation import Federation

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "fashion"
DATA = Path(os.environ.get("COVEY_DATA") or ROOT.parent / "shared" / "data").resolve() / "fashion-mnist"
FILES = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
NODES, ROUNDS = 2, 2


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example installed in it, built from a copy so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("example")
    source = shutil.copytree(
        EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    )
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(folder / "site"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def federation(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Not started; every process of it finds the installed package, and no other copy of it."""
    search = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    with Federation(tmp_path_factory.mktemp("federation"), NODES, env={"PYTHONPATH": search}) as made:
        yield made


def test_the_installed_task_is_found_by_its_name(federation: Federation) -> None:
    found = {(p["kind"], p["name"]): p for p in json.loads(federation.cli("plugins", "--json"))}
    assert found["task", "fashion"]["package"] == "covey-example-fashion"
    assert found["task", "fashion"]["target"] == "fashion_task:Fashion"
    shown = json.loads(federation.cli("plugins", "show", "task", "fashion", "--json"))
    assert shown["options"]["properties"]["hidden"]["description"] == "units of the hidden layer"


def test_two_rounds_on_fashion_mnist(federation: Federation, tmp_path: Path) -> None:
    if missing := [name for name in FILES if not (DATA / name).is_file()]:
        pytest.skip(f"no fashion-mnist/{missing[0]} in COVEY_DATA or ../shared/data")
    federation.start_coordinator(options=["--path", f"fashion={DATA}"])
    federation.join()
    for index in range(NODES):
        settings = f'[policy]\ntasks = ["fashion"]\n[data.paths]\nfashion = {json.dumps(str(DATA))}\n'
        (federation.node_dir(index) / "node.toml").write_text(settings)
    checked = federation.cli("node", "check", "--data-dir", federation.node_dir(0), "--spec", EXAMPLE / "run.toml")
    assert f"{784 * 100 + 100 + 100 * 10 + 10:,} parameters" in checked
    for index in range(NODES):
        federation.start_node(index)
    federation.wait_connected(NODES)

    text = (EXAMPLE / "run.toml").read_text()
    shorter = tmp_path / "run.toml"
    shorter.write_text(text.replace("count = 10", f"count = {ROUNDS}"))
    where = ["--data-dir", federation.coordinator_dir]
    run = federation.cli("run", "submit", shorter, *where).split()[-1]
    shown = federation.wait(run, timeout_s=100)
    assert shown["rounds_committed"] == ROUNDS
    assert shown["metrics"]["accuracy"] > 0.7
    updates = federation.admin.round(run, ROUNDS)["updates"]
    assert [u["verdict"] for u in updates] == ["accepted"] * NODES
    assert sum(u["weight"] for u in updates) == 60_000
    first = federation.admin.round(run, 1)["version"]["metrics"]
    assert shown["metrics"]["loss"] < first["loss"]
