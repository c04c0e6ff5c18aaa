from __future__ import annotations

import os
import signal
import sys
import uuid

import pytest

from covey.testing.launch.processes import Daemon, children_of, end_all, living_parent_of, marked_processes, wait_until

MARK = "COVEY_TEST_MARK"
READY = "print('ready', flush=True)"
SLEEP = f"import time; {READY}; time.sleep(600)"
IGNORES_SIGTERM = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}; time.sleep(600)"
LEAVES_A_CHILD = f"""
import subprocess, sys, signal, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
{READY}
time.sleep(600)
"""


@pytest.fixture
def mark():
    value = uuid.uuid4().hex
    yield value
    assert marked_processes(MARK, value) == []


@pytest.fixture
def start(tmp_path, mark):
    started = []

    def run(program, *, may_die=False, name="daemon"):
        daemon = Daemon(
            name, [sys.executable, "-c", program], tmp_path / f"{name}.log", {**os.environ, MARK: mark}, may_die=may_die
        )
        started.append(daemon)
        assert wait_until(lambda: "ready" in daemon.tail() or not daemon.alive, 20)
        return daemon

    yield run
    end_all(started, MARK, mark)


def test_parent_is_found_behind_a_strange_name():
    assert living_parent_of("12 (a) (b c) S 34 1 1 0") == 34


def test_a_zombie_is_nobodys_living_child():
    assert living_parent_of("12 (python) Z 34 1 1 0") is None


def test_a_daemon_lives_is_marked_and_is_ended(start, mark):
    daemon = start(SLEEP)
    assert daemon.alive
    assert daemon.exit_code is None
    assert marked_processes(MARK, mark) == [daemon.pid]
    assert daemon.pid in children_of(os.getpid())[os.getpid()]
    assert end_all([daemon], MARK, mark) == []
    assert daemon.exit_code == -signal.SIGTERM


def test_a_daemon_that_ends_by_itself_shows_its_log(start):
    daemon = start("import sys; print('why it failed'); sys.exit(3)")
    assert daemon.wait(20) == 3
    assert not daemon.alive
    assert "why it failed" in daemon.tail()


def test_waiting_too_long_shows_the_log(start):
    with pytest.raises(TimeoutError, match="ready"):
        start(SLEEP).wait(0.05)


def test_kill_leaves_nothing(start):
    daemon = start(SLEEP)
    daemon.kill()
    assert daemon.exit_code == -signal.SIGKILL
    assert daemon.may_die


def test_a_stubborn_daemon_is_killed_and_named(start, mark, monkeypatch):
    monkeypatch.setattr("covey.testing.launch.processes.STOP_S", 0.2)
    (line,) = end_all([start(IGNORES_SIGTERM)], MARK, mark)
    assert "did not end" in line


def test_a_suspended_daemon_is_ended(start, mark):
    daemon = start(SLEEP)
    daemon.suspend()
    assert end_all([daemon], MARK, mark) == []


def test_an_orphan_in_a_session_of_its_own_is_found_and_killed(start, mark, monkeypatch):
    monkeypatch.setattr("covey.testing.launch.processes.ORPHANS_S", 0.2)
    daemon = start(LEAVES_A_CHILD)
    (child,) = children_of(daemon.pid)[daemon.pid]
    daemon.kill()
    (line,) = end_all([daemon], MARK, mark)
    assert f"process {child}" in line
    assert "outlived" in line
