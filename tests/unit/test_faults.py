"""Fault points: which process dies at which passage."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from covey import faults

PASSES = """
import os, sys
sys.path[:0] = {path}
from covey import faults
for number in range(1, 5):
    faults.reach("point")
    faults.reach("other")
    print("passed", number, flush=True)
"""
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {child!r}])
print("child", child.wait(), flush=True)
time.sleep(60)
"""


def run(program, points):
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "COVEY_FAULTS": points}, capture_output=True, timeout=50
    )
    return done.returncode, done.stdout.decode().splitlines(), faults.not_passed(points, done.stderr.decode())


@pytest.mark.parametrize(
    ("points", "code", "passed", "left"),
    [
        ("", 0, 4, []),
        ("elsewhere:1", 0, 4, ["elsewhere:1"]),
        ("point:5", 0, 4, ["point:5"]),
        ("point", -9, 0, []),
        ("point:3", -9, 2, []),
        ("other:2,point:4", -9, 1, ["point:4"]),
    ],
)
def test_the_process_dies_at_that_passage_and_says_so(points, code, passed, left):
    lines = [f"passed {number + 1}" for number in range(passed)]
    assert run(PASSES.format(path=sys.path), points) == (code, lines, left)


def test_a_daemon_dies_of_what_its_worker_passes_and_the_worker_goes_on():
    child = PASSES.format(path=sys.path)
    code, lines, left = run(PARENT.format(child=child), "point:2:daemon")
    assert (code, left) == (-9, [])
    assert lines == [f"passed {number}" for number in range(1, 5)]
