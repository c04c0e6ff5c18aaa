"""Sites that cannot do their part: everybody sees it, and nobody waits for them without a word."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time

import pytest

import covey
from covey.client import connect
from covey.errors import CoveyError
from covey.testing.federation import Federation
from tests.integration.specs import async_spec, spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

TASK = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

from covey.errors import PolicyError
from covey.learning.task import NodeData, Task
from covey.outgoing.filters import OutgoingFilter


class Line(Task):
    def model(self):
        return nn.Linear(4, 2)

    def train_data(self, data: NodeData):
        if data.options.get("broken"):
            raise ValueError("the column 'age' is missing")
        return TensorDataset(torch.ones(8, 4), torch.zeros(8, dtype=torch.long))


class NotSecret(OutgoingFilter):
    def tensors(self, tensors, leaving):
        if leaving.run == "secret":
            raise PolicyError("this site has no part in secrets")
        return tensors


class Broken(Line):
    def train_data(self, data: NodeData):
        raise ValueError("labels are strings")
"""
LOCAL = '[data]\npartition = "local"'
MISSING = "ValueError: the column 'age' is missing"


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """Three nodes, of which n0 lacks a column."""
    folder = tmp_path_factory.mktemp("sites")
    (folder / "site_tasks.py").write_text(TASK)
    env = {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}
    with Federation(folder / "federation", nodes=3, env=env) as made:
        made.start_coordinator(options=["--allow-paths", "--max-runs", "1"])
        made.join()
        for index in range(3):
            broken = "true" if index == 0 else "false"
            shares = 'share_logs = "failures"\nscrub_paths = true' if index == 0 else ""
            text = (
                f'[policy]\nallow_paths = ["site_tasks:Line", "site_tasks:Broken"]\n{shares}\n'
                f"[data.options]\nbroken = {broken}\n"
            )
            (made.node_dir(index) / "node.toml").write_text(text)
            made.start_node(index)
        made.wait_connected(3)
        yield made


def test_a_site_that_fails_in_every_round_is_seen_everywhere(federation):
    path = federation.root / "run.toml"
    path.write_text(spec("sites", task="site_tasks:Line", rounds=2, extra=LOCAL))
    where = ("--data-dir", federation.coordinator_dir)
    watched = federation.cli("run", "submit", path, "--watch", *where)
    run = watched.split()[0]
    assert "2 accepted, 1 declined" in watched
    assert sum(line.startswith("  n0 declined: task-failed: ") for line in watched.splitlines()) == 1
    assert "completed: without n0, which took part in no round (2 declined" in watched
    assert "warning: n0 contributed to 0 of the 2 rounds that it was asked for (2 declined)" in watched
    assert MISSING in watched
    shown = federation.cli("run", "show", run, *where)
    assert shown.splitlines()[-1].startswith("warning: n0 contributed to 0 of the 2 rounds")
    said = json.loads(federation.cli("run", "show", run, "--json", *where))
    counts = {one["node"]: (one["asked"], one["accepted"], one["declined"]) for one in said["contributions"]}
    assert counts == {"n0": (2, 0, 2), "n1": (2, 2, 0), "n2": (2, 2, 0)}
    assert "DECLINED" in federation.cli("round", "list", run, *where)
    assert MISSING in federation.cli("node", "list", *where)
    with connect(federation.coordinator_dir) as connection:
        assert [(r.accepted, r.declined, r.received) for r in connection.rounds(run)] == [(2, 1, 0)] * 2
        node = connection.node("n0").node
        assert (node.declined, MISSING in node.last_reason) == (2, True)
    assert "the whole traceback is in the log of node n0 (covey run logs RUN --node n0)" in watched
    followed = federation.cli("run", "logs", run, "--node", "n0", "--follow", *where)
    assert '  File "<path>/site_tasks.py", line 17, in train_data' in followed
    for number in (1, 2):
        assert f"round {number}  failure  training failed: task-failed: Task.train_data: {MISSING}" in followed
        assert f"round {number}  node  assignment declined code=task-failed" in followed
    assert str(federation.root) not in followed
    logged = json.loads(federation.cli("run", "logs", run, "--node", "n0", "--json", *where))
    assert [line["number"] for line in logged] == sorted(line["number"] for line in logged)
    with covey.connect(federation.coordinator_dir) as library:
        assert [line.number for line in library.run(run).logs()] == [line["number"] for line in logged]
    with connect(federation.coordinator_dir) as connection:
        private = connection.site_log(run, "n1")
    assert (private.sharing, private.lines) == ("none", ())
    assert private.explanation.startswith("n1 does not share its log: its operator can, with share_logs")


@pytest.mark.parametrize("mode", ["rounds", "async"])
def test_a_run_that_no_node_can_do_says_why_and_the_queue_goes_on(federation, mode):
    make = {
        "rounds": lambda name, short: spec(name, task="site_tasks:Broken", policy=f'short = "{short}"', extra=LOCAL),
        "async": lambda name, short: async_spec(name, rounds=f'short = "{short}"', extra=LOCAL).replace(
            'name = "digits"\n[training]', 'name = "site_tasks:Broken"\n[training]'
        ),
    }[mode]
    failed = federation.wait(federation.submit(make("fails", "fail")), states=("failed",))
    assert "ValueError: labels are strings" in failed["reason"]
    waiting = federation.submit(make("waits", "wait"))
    federation.until(lambda: "labels are strings" in federation.show(waiting)["reason"], 60, "it does not say why")
    assert "more nodes" not in federation.show(waiting)["reason"]
    after = federation.submit(spec("after", task="site_tasks:Line", rounds=1, extra=LOCAL))  # --max-runs is 1
    assert federation.wait(after)["state"] == "completed"
    assert federation.show(waiting)["state"] == "running"
    assert federation.admin.stop_run(waiting)["state"] == "stopped"


def test_a_run_that_goes_on_is_followed_on_a_terminal_and_so_is_a_node_s_log(federation, tmp_path):
    run = federation.submit(spec("goes-on", task="site_tasks:Broken", policy='short = "wait"', extra=LOCAL))
    where = ["--data-dir", str(federation.coordinator_dir)]
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    os.set_blocking(terminal, False)
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    program, screen = [sys.executable, "-m", "covey.cli.main", "run"], bytearray()
    with (
        (tmp_path / "log").open("w+b") as log,
        subprocess.Popen([*program, "logs", run, "--node", "n0", "--follow", *where], stdout=log) as logs,
        subprocess.Popen([*program, "watch", run, *where], stdout=inside, env={**env, "TERM": "xterm"}) as watch,
    ):
        os.close(inside)

        def on_screen(text):
            try:
                screen.extend(os.read(terminal, 1 << 20))
            except BlockingIOError:
                pass
            except OSError:  # the command has ended
                return True
            return text in screen

        failure = b"failure  training failed: task-failed: Task.train_data: ValueError: labels are strings"
        federation.until(lambda: failure in (tmp_path / "log").read_bytes(), 90, "its log is not followed")
        federation.until(lambda: on_screen(b"not counted round"), 90, "nothing is on the terminal")
        assert (logs.poll(), watch.poll(), federation.show(run)["state"]) == (None, None, "running")
        federation.admin.stop_run(run)
        federation.until(lambda: on_screen(b"nothing more") and watch.poll() is not None, 60, "it does not end")
        assert (logs.wait(60), watch.wait(60)) == (0, 1)  # what was stopped is not completed
    os.close(terminal)
    assert b"\x1b[2K" in screen  # it is drawn again in its place, not line by line
    assert b"-" * 8 in screen or "─".encode() * 8 in screen
    assert b"stopped" in screen


def test_what_came_to_nothing_at_the_end_of_an_asynchronous_run_says_why(federation):
    run = federation.submit(async_spec("ends", updates=6, min_nodes=2))
    federation.wait(run)
    open_ones = [r for r in federation.rounds(run) if r["state"] == "failed"]
    assert all(r["reason"] == "not needed any more: the run is completed" for r in open_ones if not r["declined"])
    assert "failed" not in federation.cli("round", "list", run, "--data-dir", federation.coordinator_dir)


def test_rules_of_sites_are_kept_and_their_reasons_are_seen_from_the_centre(federation):
    """n0 has filters; n1's hours begin, and n2's end, in a while: by a clock of their own, to the second."""
    for index in range(3):
        federation.stop_node(index)
    turn = int(time.time()) + 20
    clock = {"TZ": f"SITE{_offset(43_200 - turn % 86_400)}"}  # there it is noon then
    rules = [
        'outgoing = [{ name = "clip-norm", options = { most = 0.001 } }, { name = "site_tasks:NotSecret" }]',
        'hours = "12:00-18:00"\nmin_participants = 3',
        'hours = "06:00-12:00"',
    ]
    night = federation.submit(_quiet("night", min_nodes=3, count=2))
    for index, text in enumerate(rules):
        settings = f'[policy]\nallow_paths = ["site_tasks:Line"]\n{text}\n'
        (federation.node_dir(index) / "node.toml").write_text(settings)
        federation.start_node(index, env=clock)
    federation.until(lambda: "n1" in _declined(federation, night, 1), 60, "n1 has not declined")
    closed = "outside this node's hours (12:00-18:00 local time)"
    assert _declined(federation, night, 1) == {"n1": f"not-now: {closed}"}
    secret = federation.submit(_quiet("secret", min_nodes=1, count=1))
    clipped = federation.submit(_quiet("clipped", min_nodes=1, count=1))
    federation.wait(clipped)
    refused = (
        "declined: this site's outgoing filter 'site_tasks:NotSecret' lets part 'model' not pass: this site has no part"
    )
    assert _declined(federation, secret, 1)["n0"].startswith(refused)
    assert "n0" not in _declined(federation, clipped, 1)
    shown = federation.cli("run", "show", clipped, "--data-dir", federation.coordinator_dir)
    assert "from here on its updates pass this site's outgoing filter clip-norm" in shown
    # The hours turn: what n1 declined it is asked for again, and n2 takes no part in the next round.
    federation.until(lambda: "n2" in _declined(federation, night, 2), 150, "the hours have not turned")
    updates = federation.admin.round(night, 1)["updates"]
    assert {update["node"]: update["verdict"] for update in updates} == dict.fromkeys(federation.names, "accepted")
    assert _declined(federation, night, 2)["n2"] == "not-now: outside this node's hours (06:00-12:00 local time)"
    federation.admin.stop_run(night)
    federation.stop_node(2)
    few = federation.submit(_quiet("few", min_nodes=1, count=1, policy="participants = 2\nrejoin_s = 1"))
    federation.wait(few)
    told = "2 nodes take part; this node's operator wants 3 ([policy] min_participants in node.toml)"
    assert _declined(federation, few, 1)["n1"] == f"not-now: {told}"
    # What its operator sees of it, on the node's own machine.
    logged = federation.cli("node", "logs", "--data-dir", federation.node_dir(1), "--run", "few", "--level", "warning")
    assert f"assignment declined code=not-now reason={told}" in logged


def _quiet(name, min_nodes, count, policy=""):
    return spec(name, task="site_tasks:Line", rounds=count, min_nodes=min_nodes, policy=policy, extra=LOCAL)


def _offset(seconds):
    """What a POSIX time zone has behind its name, where local time is UTC plus so many seconds."""
    sign, seconds = ("-", seconds) if seconds >= 0 else ("+", -seconds)
    return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _declined(federation, run, number):
    """Why nodes declined a round, by node; there may be none yet."""
    try:
        updates = federation.admin.round(run, number)["updates"]
    except CoveyError:
        return {}
    return {update["node"]: update["reason"] for update in updates if update["verdict"] == "declined"}
