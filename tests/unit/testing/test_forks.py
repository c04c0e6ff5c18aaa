"""What is forked for tests behaves as what is executed: exit codes, output, environment, children, and their ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from covey.testing.federation import MARK, Federation
from covey.testing.launch import fork_server, forks
from covey.testing.launch.forks import covey_arguments, run_covey
from covey.testing.launch.processes import marked_processes, wait_until
from covey.worker.client.client import Worker
from covey.worker.jobs.operations import HELLO
from covey.worker.jobs.runs import HelloJob

pytestmark = pytest.mark.processes


def test_only_the_command_itself_with_this_interpreter_is_forked():
    assert covey_arguments([sys.executable, "-m", "covey.cli.main", "run", "list"]) == ["run", "list"]
    assert covey_arguments([sys.executable, "-X", "dev", "-m", "covey.cli.main", "run"]) is None
    assert covey_arguments(["/usr/bin/python", "-m", "covey.cli.main"]) is None


def test_a_command_has_its_exit_code_its_output_and_its_environment(tmp_path):
    done = run_covey(["--version"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("covey, version")
    wrong = run_covey(["run", "lst"])
    assert wrong.returncode == 2
    assert "lst" in wrong.stderr
    home = run_covey(["run", "list"], env={**os.environ, "COVEY_HOME": str(tmp_path / "nowhere")})
    assert home.returncode == 1
    assert "nowhere" in home.stderr


@pytest.mark.parametrize(
    ("given", "code", "printed"), [(None, 0, ""), (3, 3, ""), ("what is wrong", 1, "what is wrong\n")]
)
def test_a_copy_ends_as_an_interpreter_would(capsys, given, code, printed):
    def run():
        raise SystemExit(given)

    assert (fork_server._exit_code(run), capsys.readouterr().err) == (code, printed)
    assert fork_server._exit_code(lambda: given) == 0


def test_a_command_that_takes_too_long_is_killed(tmp_path):
    with pytest.raises(subprocess.TimeoutExpired):
        run_covey(["coordinator", "start", "--data-dir", tmp_path, "--listen", "127.0.0.1:0"], timeout_s=0.5)


@pytest.mark.parametrize("fork", [True, False])
def test_a_daemon_has_its_worker_as_its_child_and_nothing_outlives_it(tmp_path, fork):
    with Federation(tmp_path, nodes=0, fork=fork) as federation:
        daemon = federation.start_coordinator()
        assert isinstance(daemon._process, forks.ForkedProcess) is fork
        first = federation.worker_pids["coordinator"]
        assert psutil.Process(first).ppid() == daemon.pid
        assert psutil.Process(daemon.pid).ppid() == os.getpid()
        left = {daemon.pid, first}
        assert left <= set(marked_processes(MARK, federation._mark))
        daemon.kill()
        assert daemon.exit_code == -signal.SIGKILL
        assert wait_until(lambda: not marked_processes(MARK, federation._mark), 20)
        federation.start_coordinator()
        assert federation.stop_coordinator() == 0


async def test_a_worker_of_this_process_is_its_child_and_does_its_work(tmp_path):
    with forks.forked_workers():
        worker = await Worker.start(tmp_path)
    try:
        assert (await worker.do(HELLO, HelloJob())).device == "cpu"
        child = psutil.Process(worker.pid)
        assert child.ppid() == os.getpid()
        assert "covey.testing.launch.fork_server" in child.cmdline()
    finally:
        await worker.stop()
    assert not psutil.pid_exists(worker.pid)


PARENT = """
import sys, time
from pathlib import Path
from covey.testing.launch import fork_server, forks
from covey.testing.federation import Federation

forks.enable()
with Federation(Path(sys.argv[1]), nodes=0) as federation:
    print(federation.start_coordinator().pid, federation.worker_pids["coordinator"], flush=True)
    time.sleep(60)
"""


def test_nothing_outlives_a_test_process_that_is_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", PARENT, tmp_path], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        started = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(started) == 2
        parent.kill()
    assert wait_until(lambda: not any(process.is_running() and process.status() != "zombie" for process in started), 20)
