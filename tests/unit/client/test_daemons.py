import os
import subprocess
import sys
import time

import pytest

from covey.client.errors import DaemonFailed
from covey.client.experiments.daemons import LocalDaemons


def test_a_daemon_that_ended_is_reported_with_the_end_of_its_log(tmp_path):
    with LocalDaemons() as daemons:
        daemon = daemons.start("the node", ["node", "start", "--data-dir", tmp_path / "no"], tmp_path / "node.log")
        assert daemon.process.wait(30) == 1
        with pytest.raises(DaemonFailed, match=r"(?s)the node ended with exit code 1.*has not joined"):
            daemons.check()


def test_leaving_ends_what_was_started(tmp_path):
    with LocalDaemons() as daemons:
        daemon = daemons.start("help", ["--help"], tmp_path / "logs" / "help.log")
        assert os.getsid(daemon.process.pid) != os.getsid(0)
    assert daemon.process.returncode is not None


PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from covey.client.experiments.daemons import LocalDaemons

folder = Path(sys.argv[1])
options = ["--listen", "127.0.0.1:0", "--enrol-listen", "127.0.0.1:0", "--data-dir", folder / "coordinator"]
daemon = LocalDaemons().start("the coordinator", ["coordinator", "start", *options], folder / "log")
while not (folder / "coordinator" / "coordinator.json").exists():
    daemon.check()
    time.sleep(0.05)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_started_ends_with_a_process_that_is_killed(tmp_path):
    subprocess.run([sys.executable, "-c", PROGRAM, tmp_path], timeout=120, check=False)
    give_up_at = time.monotonic() + 60
    while "stopped" not in (said := (tmp_path / "log").read_text()):
        assert time.monotonic() < give_up_at, said
        time.sleep(0.05)
