"""Methods that are packages of their own pass the suite, in a process as their authors would have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
SUITE = """
from covey.testing.launch import forks
from covey.testing.methods import MethodConformance

forks.enable()


class TestBid(MethodConformance):
    name = "bid"


class TestRoundtable(MethodConformance):
    name = "roundtable"
"""


def test_they_pass_the_conformance_suite(search: str, tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "test_suite.py")]
    environment = {**os.environ, "PYTHONPATH": search}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment, check=False)
    assert done.returncode == 0, done.stdout
    assert "16 passed" in done.stdout
