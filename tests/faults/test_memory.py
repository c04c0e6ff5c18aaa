"""Workers that need more memory than there is: on a node, and at the coordinator; by a limit, and by the kernel."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil
import pytest

from covey.testing.federation import Federation
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]
GROUPS = Path("/sys/fs/cgroup/memory")
LIMIT_GIB = 3
HUNGRY = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

from covey.aggregation.contract import Aggregate, Aggregator
from covey.learning.task import Task


class Hungry(Task):
    class Options(Task.Options):
        way: str = ""

    def model(self):
        return nn.Linear(4, 2)

    def train_data(self, data):
        if data.options["hungry"] and self.options.way == "at-once":
            torch.empty(1 << 36)  # which nobody touches: only a limit refuses it
        if data.options["hungry"] and self.options.way == "page-by-page":
            held = []
            while True:
                held.append(torch.ones(1 << 22))
        return TensorDataset(torch.ones(8, 4), torch.zeros(8, dtype=torch.long))


class HungryRule(Aggregator):
    def aggregate(self, updates, state, context):
        torch.empty(1 << 36)
"""
LOCAL = '[data]\npartition = "local"\n[evaluation]\nevery = 0\n'


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """Node n1's worker has a limit, and so has the coordinator's."""
    folder = tmp_path_factory.mktemp("memory")
    (folder / "hungry.py").write_text(HUNGRY)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    with Federation(folder / "federation", nodes=2, env={"PYTHONPATH": path}) as made:
        made.start_coordinator(options=["--allow-paths", "--worker-memory", f"{LIMIT_GIB}GiB"])
        made.join()
        for index in range(2):
            limits = f"[limits]\nmemory_gib = {LIMIT_GIB}\n" if index else ""
            settings = (
                f'[policy]\nallow_paths = ["hungry:Hungry"]\n[data.options]\nhungry = {"true" if index else "false"}\n'
            )
            (made.node_dir(index) / "node.toml").write_text(settings + limits)
            made.start_node(index)
        made.wait_connected(2)
        yield made


def run_of(way="", policy='short = "fail"', extra=LOCAL, **more):
    name = way or "fed"
    return spec(name, task="hungry:Hungry", options=f'way = "{way}"', rounds=1, policy=policy, extra=extra, **more)


def fine(federation):
    return federation.wait(federation.submit(run_of()))["state"]


def test_a_training_that_reaches_its_limit_says_so(federation):
    ended = federation.wait(federation.submit(run_of("at-once")), ("failed",))
    assert "n1 declined: out-of-memory: " in ended["reason"]
    assert "no memory left (hungry.py:19, in train_data)" in ended["reason"]
    assert (
        f"this worker may have {LIMIT_GIB} GiB: raise that ([limits] memory_gib in a node's node.toml"
        in ended["reason"]
    )
    assert fine(federation) == "completed"


def test_an_aggregation_that_reaches_its_limit_says_so(federation):
    rule = LOCAL + '[aggregation]\nname = "hungry:HungryRule"\n'
    ended = federation.wait(federation.submit(run_of(extra=rule)), ("failed",))
    print(ended["reason"])
    assert "no memory left (hungry.py:29, in aggregate)" in ended["reason"]
    assert "--worker-memory of a coordinator" in ended["reason"]
    assert fine(federation) == "completed"


@contextlib.contextmanager
def group_of(pid, more_bytes):
    """Put a process, and what it starts, into a control group that may have so much memory; or the test is skipped."""
    group = GROUPS / f"covey-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(more_bytes))
    except OSError as error:
        pytest.skip(f"no control group of memory can be made here: {error}")
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            (group / "cgroup.procs").write_text(str(one.pid))
        yield
    finally:
        for one in (group / "cgroup.procs").read_text().split():
            (GROUPS / "cgroup.procs").write_text(one)
        group.rmdir()


def test_a_worker_that_the_kernel_kills_is_started_anew_a_few_times_and_then_its_node_says_so(federation):
    with group_of(federation.node(1).pid, 400 << 20):
        federation.kill_worker("n1")  # the next one is in the group, too
        ended = federation.wait(federation.submit(run_of("page-by-page")), ("failed",))
        print(ended["reason"])
        assert "n1 declined: worker-died: " in ended["reason"]
        assert (
            "killed by signal 9 (the system has killed a process for want of memory meanwhile; its limit is 3 GiB"
            in ended["reason"]
        )
        assert federation.node(1).printed.count("the worker died") == 3
        assert fine(federation) == "completed"
