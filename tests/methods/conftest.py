"""The methods of these tests are packages of their own, installed as a user would install them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

METHODS = Path(__file__).parent


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the methods are installed."""
    folder = tmp_path_factory.mktemp("methods")
    sources = [shutil.copytree(METHODS / name, folder / name) for name in ("bid", "roundtable")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(folder / "site"), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture(scope="session")
def search(site: Path) -> str:
    """A search path with them."""
    return os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
