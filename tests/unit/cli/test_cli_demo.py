"""`covey demo` as a user types it, in a process of its own."""

import json
import os
import shlex
import signal
import subprocess
import sys
import uuid

import pytest
from click.testing import CliRunner

from covey.cli.commands.demo import GOSSIP_FIELDS, running_program
from covey.cli.framework.command import INTERRUPTED
from covey.cli.main import covey
from covey.cli.views.demo_gossip import GossipDemo, show
from covey.client.gossip_consensus import Consensus
from covey.gossip.audit import MassAudit
from covey.testing.launch.processes import marked_processes, wait_until

pytestmark = pytest.mark.processes
pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
MARK = "COVEY_FEDERATION"
"""A variable that workers keep of the environment, too."""
DEMO_PROCESSES = 5
"""The command, and a daemon and its worker for the coordinator and its one node."""


def heed_interrupts():
    """As in a terminal: what runs in the background, these tests too, may have been told to ignore them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Start:
    """Starts `covey ARGUMENTS` when it is called, and knows what of it is left."""

    def __init__(self):
        self._mark, self.started = uuid.uuid4().hex, []

    def __call__(self, *arguments):
        command = [sys.executable, "-m", "covey.cli.main", *map(str, arguments)]
        env = {**os.environ, MARK: self._mark}
        child = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
        )
        self.started.append(child)
        return child

    def left(self):
        return marked_processes(MARK, self._mark)


@pytest.fixture
def start():
    """Starts commands, and sees to it that nothing they started stays."""
    starter = Start()
    yield starter
    for child in starter.started:
        child.kill()
        child.communicate()
    for pid in starter.left():
        os.kill(pid, signal.SIGKILL)


def ask(data_dir, *arguments):
    done = CliRunner().invoke(covey, [*arguments, "--data-dir", str(data_dir), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.timeout(300)
def test_a_demo_leaves_a_record_and_what_it_prints_at_its_end_works_as_printed(start, tmp_path):
    child = start("demo", "--nodes", 2, "--rounds", 3, "--keep", tmp_path / "my demo")
    out, err = child.communicate(timeout=100)
    assert child.returncode == 0, err
    assert start.left() == []
    data_dir = tmp_path / "my demo/coordinator"
    accuracies = [item["metrics"]["accuracy"] for item in ask(data_dir, "round", "list", "digits")]
    assert len(accuracies) == 3
    assert accuracies[-1] > 0.5
    detail = ask(data_dir, "round", "show", "digits", "3")
    verdicts = {update["node"]: update["verdict"] for update in detail["updates"]}
    assert verdicts == {"node-1": "accepted", "node-2": "accepted"}
    assert detail["version"]["model_sha256"] == ask(data_dir, "run", "show", "digits")["model_sha256"]
    assert [node["accepted"] for node in ask(data_dir, "node", "list")] == [3, 3]
    assert ask(data_dir, "store", "check")["ok"] is True

    printed = [line.strip() for line in out.splitlines() if line.startswith(f"  {running_program()} ")]
    reading, going_on = printed[:-2], printed[-2:]
    server = json.loads((tmp_path / "my demo/nodes/node-1/identity/federation.json").read_text())["server"]
    assert f"--listen {server} " in going_on[0]
    assert "run submit" in going_on[1]
    asked = [line.removeprefix(running_program()).split()[:2] for line in reading]
    assert [" ".join(words) for words in asked] == [
        "run show",
        "round list",
        "round show",
        "node list",
        "run audit",
        "run export",
    ]
    for line in reading:
        done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (line, done.stderr)
    assert (tmp_path / "digits.safetensors").stat().st_size > 0


def test_a_demo_of_gossip_ends_with_the_audit_and_the_consensus(start, tmp_path):
    child = start("demo", "--gossip", "--rounds", 12, "--keep", tmp_path / "demo", "--json")
    out, err = child.communicate(timeout=100)
    assert child.returncode == 0, err
    assert start.left() == []
    shown = json.loads(out)
    assert list(shown) == [name.partition(" ")[0] for name in GOSSIP_FIELDS]
    assert shown["nodes"] == ["node-1", "node-2", "node-3"]
    assert (shown["mass"]["exact"], shown["mass"]["live"], shown["mass"]["in_flight"]) == (True, 3 << 52, 0)
    assert shown["metrics"]["accuracy"] > 0.5
    assert os.path.getsize(shown["model"]) > 10_000
    assert ask(shown["data_dirs"][0], "gossip", "status")["steps"] == 12


def test_what_a_demo_of_gossip_says_at_its_end(capsys, tmp_path):
    consensus = Consensus("digits", "ab", 2.0, 0.25, (), {"accuracy": 0.875})
    mass = MassAudit(2 << 52, 0, 2 << 52, 0, 0, ())
    folders = (tmp_path / "a node", tmp_path / "b")
    outcome = GossipDemo(tmp_path, ("a", "b"), folders, 6, mass, tmp_path / "mean.safetensors", consensus, 1.0)
    assert list(outcome.to_json()) == [name.partition(" ")[0] for name in GOSSIP_FIELDS]
    show(outcome, "covey")
    said = capsys.readouterr().out
    assert "exact: 2 live, 2 minted" in said
    assert "accuracy 0.875" in said
    assert f"covey gossip audit {shlex.quote(str(folders[0]))} {folders[1]}\n" in said


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "my programs" / "covey"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_running_program_is_named_so_that_a_shell_finds_it(program, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(program.parent))
    assert running_program() == "covey"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(program.parent)
    monkeypatch.setattr(sys, "argv", ["./covey", "demo"])
    assert shlex.split(running_program()) == [str(program)]
    monkeypatch.setattr(sys, "argv", ["/a/folder/covey/cli/main.py", "demo"])
    assert shlex.split(running_program()) == [sys.executable, "-m", "covey.cli.main"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_demo_that_is_interrupted_leaves_no_process(start, tmp_path, number):
    child = start("demo", "--nodes", 1, "--rounds", 100_000, "--keep", tmp_path / "demo")
    assert wait_until(lambda: child.poll() is not None or len(start.left()) == DEMO_PROCESSES, 100)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    # The second one: a Python that was interrupted in `exec` of a text (an import makes dataclasses so) ends with it.
    assert child.returncode in (INTERRUPTED, -signal.SIGINT), err
    assert err.endswith("interrupted\n")
    assert start.left() == []


def test_a_folder_that_is_in_use_is_not_touched(start, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    child = start("demo", "--keep", tmp_path)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (1, "")
    assert "is not empty" in err
    assert os.listdir(tmp_path) == ["mine.txt"]
