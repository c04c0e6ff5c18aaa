"""What is built and installed: one top-level name, no file missing, and a demo that runs among hostile names."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from covey import __version__
from covey.cli.commands.demo import DEMO_FIELDS

ROOT = Path(__file__).resolve().parents[2]
RELEASE = f"covey-{__version__}"
OLD_NAMES = ("aggregation", "coordinator", "node", "protos", "storage")
"""Each was a top-level name once, as a user's own module may be."""
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@dataclass(frozen=True)
class Installed:
    """A virtual environment with nothing but an installed wheel, and the libraries of this interpreter."""

    folder: Path
    added: frozenset[str]
    """What installing added to its site-packages."""


def run(
    command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The ended process; its exit code is for the caller to judge."""
    return subprocess.run(command, capture_output=True, text=True, timeout=150, cwd=cwd, env=env)


def succeed(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """What a command printed."""
    ended = run(command, cwd, env)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def build_wheel(source: Path, folder: Path) -> Path:
    succeed([*PIP, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)])
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    succeed([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder)], cwd=ROOT)
    return folder / f"{RELEASE}.tar.gz"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    succeed([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    (site,) = folder.glob("lib/python*/site-packages")
    # The lines of a .pth file in a folder that is named by one are not read: the checkout itself stays invisible.
    libraries = [path for path in sys.path if Path(path).name == "site-packages"]
    (site / "libraries.pth").write_text("".join(f"{path}\n" for path in libraries))
    before = {path.name for path in site.iterdir()}
    python = str(folder / "bin" / "python")
    succeed([*PIP, "--python", python, "install", "--no-index", "--no-deps", "--no-compile", str(wheel)])
    return Installed(folder, frozenset(path.name for path in site.iterdir()) - before)


def source_files() -> Iterator[str]:
    """Every file of the package, as its path inside a wheel."""
    for folder, subfolders, names in os.walk(ROOT / "covey", followlinks=True):
        subfolders[:] = [name for name in subfolders if name != "__pycache__"]
        yield from (str((Path(folder) / name).relative_to(ROOT)) for name in names)


def recorded(wheel: Path) -> dict[str, str]:
    """Name and hash of each file in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        record = archive.read(f"{RELEASE}.dist-info/RECORD").decode()
    return {name: digest for name, digest, _ in csv.reader(io.StringIO(record))}


# -- what is in it


def test_no_file_is_missing_from_the_wheel(wheel: Path) -> None:
    packed = {name for name in recorded(wheel) if name.startswith("covey/")}
    assert packed == set(source_files())
    assert {"covey/py.typed", "covey/protos/coordinator_pb2.pyi", "covey/node/__init__.py"} <= packed
    assert any(name.startswith("covey/storage/sql/migrations/versions/") for name in packed)


def test_it_adds_one_name_to_an_environment(installed: Installed) -> None:
    assert installed.added == {"covey", f"{RELEASE}.dist-info"}


def test_a_wheel_from_the_source_archive_is_the_same(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    assert recorded(build_wheel(sdist, tmp_path)) == recorded(wheel)


def test_the_source_archive_holds_each_file_once_and_no_link(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert all(member.isfile() for member in members)
    top = {Path(member.name).parts[1] for member in members}
    assert not top & set(OLD_NAMES)
    assert {"covey", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt"} <= top


# -- what it does where it is installed


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder of modules with the names that Covey's own folders have in a checkout; none may be imported."""
    folder = tmp_path / "hostile"
    for name in OLD_NAMES:
        module = folder / name / "__init__.py" if name in ("storage", "protos") else folder / f"{name}.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(f"raise RuntimeError('the user has a module {name} of their own')\n")
    return folder


@pytest.mark.processes
@pytest.mark.timeout(180)
def test_a_demo_runs_where_the_user_has_modules_of_these_names(
    installed: Installed, hostile: Path, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
    environment = {**os.environ, "PYTHONPATH": str(hostile)}
    programs = installed.folder / "bin"
    origin = succeed([str(programs / "python"), "-c", "import covey; print(covey.__file__)"], hostile, environment)
    assert Path(origin.strip()).is_relative_to(installed.folder)
    command = [str(programs / "covey"), "demo", "--nodes", "2", "--rounds", "1", "--json"]
    answer = json.loads(succeed([*command, "--keep", str(tmp_path / "demo")], hostile, environment))
    assert list(answer) == [name.partition(" ")[0] for name in DEMO_FIELDS]
    assert (answer["run"]["state"], answer["run"]["rounds_committed"]) == ("completed", 1)
    assert [one["accepted"] for one in answer["rounds"]] == [2]
    assert 0 < answer["first_round_s"] <= answer["seconds"]
    assert os.path.samefile(answer["store"], tmp_path / "demo" / "coordinator" / "covey.db")


IMPORTS = """
import importlib, pkgutil, sys, covey
for found in pkgutil.walk_packages(covey.__path__, "covey."):
    if not found.name.startswith(("covey.testing", "covey.storage.sql.migrations")) and "__main__" not in found.name:
        importlib.import_module(found.name)
print(sorted(name for name in sys.modules if name in OLD))
"""
TASK = """
import torch
from torch.utils.data import TensorDataset
from covey.learning.task import Task


class Mine(Task):
    def model(self):
        return torch.nn.Linear(2, 2)

    def train_data(self, data):
        return TensorDataset(torch.randn(8, 2), torch.zeros(8, dtype=torch.long))
"""
RUN = """
name = "mine"
[task]
name = "my_task:Mine"
[rounds]
count = 1
"""


@pytest.mark.processes
@pytest.mark.timeout(180)
def test_a_folder_of_the_users_hides_nothing_in_any_module_nor_in_the_worker(
    installed: Installed, hostile: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(hostile)}
    programs = installed.folder / "bin"
    text = IMPORTS.replace("OLD", repr(OLD_NAMES))
    assert succeed([str(programs / "python"), "-P", "-c", text], hostile, environment).splitlines()[-1] == "[]"
    project = tmp_path / "project"
    project.mkdir()
    for name in (*OLD_NAMES, "signal", "random", "statistics", "logging", "torch", "numpy", "queue"):
        (project / f"{name}.py").write_text(f"raise RuntimeError('the user has a module {name} of their own')\n")
    (project / "my_task.py").write_text(TASK)
    (project / "run.toml").write_text(RUN)
    covey, plain = str(programs / "covey"), {**os.environ, "PYTHONPATH": ""}
    command = [covey, "simulate", "run.toml", "--nodes", "2", "--processes", "1", "--json"]
    answer = json.loads(succeed([*command, "--data-dir", str(tmp_path / "record")], project, plain))
    assert answer["run"]["state"] == "completed"
    assert "mean" in succeed([covey, "plugins"], project, plain)


# -- a checkout


@pytest.mark.parametrize("name", OLD_NAMES)
def test_a_folder_refuses_to_be_imported_by_its_old_name(name: str) -> None:
    ended = run([sys.executable, "-c", f"import {name}"], cwd=ROOT)
    assert ended.returncode == 1
    assert f"ImportError: this folder is the package covey.{name}: import it by that name, not as" in ended.stderr


def test_a_clone_without_symbolic_links_fails_in_words(tmp_path: Path) -> None:
    """Git writes a link's target into a file where `core.symlinks` is off."""
    links = [path for path in (ROOT / "covey").iterdir() if path.is_symlink()]
    assert {path.name for path in links} == set(OLD_NAMES)
    clone = tmp_path / "covey"
    clone.mkdir()
    (clone / "__init__.py").write_bytes((ROOT / "covey" / "__init__.py").read_bytes())
    for path in links:
        (clone / path.name).write_text(os.readlink(path))
    ended = run([sys.executable, "-c", "import covey"], cwd=tmp_path)
    assert ended.returncode == 1
    assert "made without symbolic links. Clone it again with `git clone -c core.symlinks=true`" in ended.stderr


def test_the_image_copies_what_the_wheel_is_built_from(wheel: Path, tmp_path: Path) -> None:
    """Links stay links in a build context; what `.dockerignore` does not name is not there."""
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", (ROOT / "docker" / "Dockerfile").read_text(), re.MULTILINE)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for name in {name for names in copied for name in names.split()}:
        assert name in allowed
        source, target = ROOT / name, tmp_path / "context" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    assert recorded(build_wheel(tmp_path / "context", tmp_path)) == recorded(wheel)
