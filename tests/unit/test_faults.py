"""Fault points: which process dies, or waits, at which passage."""

from __future__ import annotations

import os
import signal
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


@pytest.mark.parametrize(("count", "times"), [("2", 1), ("2+", 3)])
def test_a_process_is_suspended_at_that_passage_and_goes_on_when_it_is_told_to(count, times):
    points = f"point:{count}:suspend"
    command, env = [sys.executable, "-c", PASSES.format(path=sys.path)], {**os.environ, "COVEY_FAULTS": points}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as made:
        for _ in range(times):
            _, status = os.waitpid(made.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            assert os.WSTOPSIG(status) == signal.SIGSTOP
            made.send_signal(signal.SIGCONT)
        printed, said = made.communicate(timeout=50)
    assert (made.returncode, printed.splitlines()) == (0, [f"passed {number}" for number in range(1, 5)])
    assert said.count(f"process {made.pid} is suspended") == times
    assert faults.not_passed(points, said) == []


def test_the_part_of_messages_that_is_to_be_lost_is_lost_and_no_others() -> None:
    program = (
        f"import sys; sys.path[:0] = {sys.path}; from covey import faults;"
        "print(sum(faults.is_lost('word') for _ in range(2000)), any(faults.is_lost('other') for _ in range(2000)))"
    )
    env = {**os.environ, "COVEY_LOSSES": "word:0.5,never:0"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=50)
    lost, other = done.stdout.split()
    assert 800 < int(lost) < 1200
    assert other == "False"
    assert not faults.is_lost("word")
