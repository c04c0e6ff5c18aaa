"""The comparison with hivemind, where that is installed: `pip install hivemind`, which Covey does not need."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.measuring import hivemind_peers


def test_two_peers_of_hivemind_have_the_mean() -> None:
    pytest.importorskip("hivemind", reason="hivemind is not installed")
    command = [sys.executable, hivemind_peers.__file__, "--peers", "2", "--parameters", "1000", "--steps", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    measured = json.loads(done.stdout)
    assert [len(measured[name]) for name in ("times_s", "cpu_s")] == [1, 1]
    assert measured["times_s"][0] > 0
