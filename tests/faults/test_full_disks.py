"""Disks that fill up: what is acknowledged stays, who waits says for what, and with room again it goes on by itself."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys

import psutil
import pytest

from covey.testing.federation import Federation
from tests.faults.disks import disk
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]
MODEL_BYTES = 4 * 400_000
FOR_A_ROW = 300_000
NOTHING, MANY = 65_536, 60
KEEPS = """
[server_optimizer]
name = "adam"
[keep]
updates = 100
versions = 100
[exchange]
codec = "top-k"
[evaluation]
every = 0
"""
"""Nothing is let go that could be written over; the coordinator keeps moments, nodes what the codec left out."""


def run_of(name, seed, train_seconds=0.1):
    """Updates and models of two chunks, of another size each: no file of another run is of use."""
    options = f"parameters = {MODEL_BYTES // 4 + 1000 * seed}\ntrain_seconds = {train_seconds}"
    return spec(name, task="synthetic", options=options, rounds=2, policy="deadline_s = 600.0", extra=KEEPS, seed=seed)


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    """The coordinator and node n1 have small disks of their own."""
    folder = tmp_path_factory.mktemp("full")
    root = folder / "federation"
    with (
        disk(root / "coordinator", 200) as of_coordinator,
        disk(root / "nodes" / "n1", 200) as of_node,
        Federation(root, nodes=2) as federation,
    ):
        yield federation.start(), of_coordinator, of_node


def filled_again_and_again(federation, run, full, step_bytes):
    """Give a run that a full disk holds up a little more room each time, until it needs no more; what it said."""
    said = []

    def done_or_stuck():
        now = federation.show(run)
        is_new = now["reason"] not in said or full.free_bytes < NOTHING
        if "free" in now["reason"] and is_new:
            said.append(now["reason"])
        return now["state"] == "completed" or ("free" in now["reason"] and is_new)

    for _ in range(MANY):
        federation.until(done_or_stuck, 60, "the run neither went on nor said what it waits for")
        if federation.show(run)["state"] == "completed":
            return said
        left_bytes = full.free_bytes + step_bytes
        full.empty()
        full.fill(left_bytes)
    raise AssertionError(f"it takes more and more room: {said}")


PLACES = re.compile(r"(spool|scratch|artifacts|journal|state|covey\.db)|the (model) and")


def has_ended(federation, run, words):
    """Whether a run says this, or is completed: what it needed may have been there already."""
    now = federation.show(run)
    return now["state"] == "completed" or words in now["reason"]


def places(said):
    """The places of which it was said that they have no room."""
    return {match[1] or match[2] for text in said for match in PLACES.finditer(text)}


def held_up(federation, text, full, step_bytes):
    """A run on a disk that is full from the start completes, with nothing lost; what it said, and its sha."""
    full.fill(FOR_A_ROW)
    run = federation.submit(text)
    said = filled_again_and_again(federation, run, full, step_bytes)
    full.empty()
    assert [(r["state"], r["attempt"], r["accepted"]) for r in federation.rounds(run)] == [("committed", 1, 2)] * 2
    federation.cli("run", "audit", run, "--data-dir", federation.coordinator_dir)
    return said, federation.show(run)["model_sha256"]


def test_a_full_disk_of_a_node_is_waited_for(setup):
    """First: files that a node is done with would be given up before anything is refused."""
    federation, _, full = setup
    said, sha = held_up(federation, run_of("full", 2), full, MODEL_BYTES)
    assert "scratch" in places(said), said
    assert all(text.startswith("n1 waits: ") and str(full.folder) in text for text in said), said
    assert federation.wait(federation.submit(run_of("full", 2)))["model_sha256"] == sha


def test_a_full_disk_of_the_coordinator_is_waited_for(setup):
    federation, full, _ = setup
    said, sha = held_up(federation, run_of("full", 1), full, 2 * MODEL_BYTES)
    assert "scratch" in places(said), said
    assert all(str(full.folder) in text for text in said)
    run = federation.submit(run_of("full", 1, train_seconds=0.5))
    federation.wait_round(run, 1)
    full.fill()
    federation.until(
        lambda: "are free on its disk" in federation.show(run)["reason"], 30, "it does not say why it waits"
    )
    full.empty()
    assert federation.wait(run)["model_sha256"] == sha
    assert federation.wait(federation.submit(run_of("full", 1)))["model_sha256"] == sha  # which nothing disturbed


def test_a_coordinator_that_is_killed_on_a_full_disk_goes_on_when_there_is_room(setup):
    federation, full, _ = setup
    full.fill(FOR_A_ROW)
    try:
        run = federation.submit(run_of("full", 3))
        says(federation, run, "are free on")
        federation.kill_coordinator()
    finally:
        full.empty()
    federation.start_coordinator()
    ended = federation.wait(run)
    assert federation.wait(federation.submit(run_of("full", 3)))["model_sha256"] == ended["model_sha256"]


def says(federation, run, words):
    """Wait until a run's reason says something."""
    federation.until(lambda: words in federation.show(run)["reason"], 30, f"it does not say {words!r}")


def limit_of_files(pids, size_bytes):
    """Let these processes write no file that is larger, as a quota would."""
    for pid in pids:
        psutil.Process(pid).rlimit(resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


@pytest.mark.parametrize("name", ["coordinator", "n1"])
def test_a_limit_of_the_size_of_files_is_waited_for(setup, name):
    """Of the coordinator only the worker's: its database's log may be larger already."""
    federation, *_ = setup
    pids = [federation.worker_pids[name], *([federation.pids[name]] if name == "n1" else [])]
    limit_of_files(pids, MODEL_BYTES // 2)
    try:
        run = federation.submit(run_of("limited", 4 + (name == "n1")))
        says(federation, run, "no room for")
    finally:
        limit_of_files(pids, resource.RLIM_INFINITY)
    ended = federation.wait(run)
    again = federation.submit(run_of("limited", 4 + (name == "n1")))
    assert federation.wait(again)["model_sha256"] == ended["model_sha256"]


@pytest.mark.parametrize("name", ["coordinator", "n1"])
def test_too_many_open_files_are_waited_for(setup, name):
    federation, *_ = setup
    daemon = psutil.Process(federation.pids[name])
    before = daemon.rlimit(resource.RLIMIT_NOFILE)
    daemon.rlimit(resource.RLIMIT_NOFILE, (daemon.num_fds(), before[1]))
    try:
        run = federation.submit(run_of("few", 6 + (name == "n1")))
        if name == "coordinator":
            says(federation, run, "too many files are open; raise LimitNOFILE")
    finally:
        daemon.rlimit(resource.RLIMIT_NOFILE, before)
    ended = federation.wait(run)
    again = federation.submit(run_of("few", 6 + (name == "n1")))
    assert federation.wait(again)["model_sha256"] == ended["model_sha256"]


FEW = 64
TOO_FEW_FILES = ("prlimit", "--nofile=20:20")


def allow(daemon, files):
    """Let a daemon that starts have no more files open than this, and no more than this ever."""
    psutil.Process(daemon.pid).rlimit(resource.RLIMIT_NOFILE, (files, files))


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs the program prlimit (util-linux)")
def test_few_open_files_from_the_start_suffice_and_too_few_are_refused_in_words(setup):
    federation, *_ = setup
    federation.stop_node(0)
    command = [sys.executable, "-m", "covey.cli.main", "node", "start", "--data-dir", federation.node_dir(0)]
    refused = subprocess.Popen([*TOO_FEW_FILES, *command], stderr=subprocess.PIPE, text=True)
    allow(federation.restart_coordinator(), FEW)
    _, said = refused.communicate(timeout=60)
    assert refused.returncode == 1
    assert "only 20 files may be open at once, and a daemon needs 64 at least: raise LimitNOFILE" in said
    allow(federation.start_node(0), FEW)
    federation.wait_connected(2)
    assert federation.wait(federation.submit(run_of("from-the-start", 8)))["state"] == "completed"
