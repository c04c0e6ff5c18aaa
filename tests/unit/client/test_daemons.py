import os

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
