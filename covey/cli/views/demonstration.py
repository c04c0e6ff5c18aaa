"""What `covey demo` does: starts daemons as a user would, enrols nodes, and follows one run to its end."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

from covey.cli.framework.connection import Admin, Unreachable, connect
from covey.cli.framework.options import Target
from covey.cli.framework.processes import Daemon, Daemons
from covey.cli.views.watching import View, statuses, view_for
from covey.coordinator.config import DATABASE
from covey.errors import RunFailed
from covey.node.membership.enrolment import join
from covey.protos import admin_pb2 as pb

READY_S = 60.0
POLL_S = 0.01
SUBMIT_DEADLINE_S = 60.0
TOKEN_S = 600.0
SPEC_FILE = "digits.toml"
SPEC = """\
name = "digits"
seed = 7

[task]
name = "digits"
[task.options]
hidden = 64

[training]
optimizer = "sgd"
learning_rate = 0.1
batch_size = 32
local_epochs = 1

[rounds]
count = {rounds}
min_nodes = {nodes}
"""


@dataclass(frozen=True)
class Outcome:
    """What a demonstration came to."""

    folder: Path
    data_dir: Path
    """The coordinator's."""
    run: pb.Run
    rounds: list[pb.Round]
    first_round_s: float
    """From the command to the first committed round, in seconds."""
    seconds: float
    """From the command to the end of the run."""

    @property
    def store(self) -> Path:
        """The record's database."""
        return self.data_dir / DATABASE


class Demonstration:
    """A federation whose coordinator has been started, on its way to a trained model."""

    def __init__(self, folder: Path, daemons: Daemons, started: float) -> None:
        """Take over.

        Args:
            folder: Where everything is; the coordinator's data directory is `coordinator` in it.
            daemons: What has been started, and where the nodes are added.
            started: When the command began (`time.monotonic`).
        """
        self.folder, self._daemons, self._started = folder, daemons, started
        self.data_dir = folder / "coordinator"
        self._target = Target(self.data_dir)

    def wait_ready(self, daemon: Daemon) -> None:
        """Wait until the coordinator listens.

        Raises:
            DaemonFailed: It ended.
            Unreachable: It takes longer than `READY_S`.
        """
        give_up_at = time.monotonic() + READY_S
        while not self._announced(daemon):
            daemon.check()
            if time.monotonic() > give_up_at:
                raise Unreachable(f"the coordinator is not ready after {READY_S:g} s; see {daemon.log}")
            time.sleep(POLL_S)

    def _announced(self, daemon: Daemon) -> bool:
        with contextlib.suppress(FileNotFoundError):
            text = (self.data_dir / "coordinator.json").read_text()
            return bool(json.loads(text)["pid"] == daemon.process.pid)
        return False

    def start_nodes(self, names: list[str]) -> None:
        """Enrol nodes, and start each at once."""
        with connect(self._target) as admin:
            for name in names:
                data_dir = self.folder / "nodes" / name
                join(self._token(admin, name), data_dir)
                arguments = ["node", "start", "--data-dir", data_dir, "--device", "cpu"]
                self._daemons.start(name, arguments, self._log(name))

    def _token(self, admin: Admin, name: str) -> str:
        request = pb.CreateTokenRequest(node=name, role="node", expires_s=TOKEN_S)
        return str(admin.call("CreateToken", request).token)

    def submit(self, nodes: int, rounds: int) -> str:
        """Submit the run, which begins when all nodes are there; its id."""
        spec = SPEC.format(nodes=nodes, rounds=rounds)
        (self.folder / SPEC_FILE).write_text(spec)
        with connect(self._target) as admin:
            request = pb.SubmitRunRequest(spec_toml=spec)
            return str(admin.call("SubmitRun", request, deadline_s=SUBMIT_DEADLINE_S).run)

    def follow(self, run: str, *, as_json: bool) -> Outcome:
        """Follow the run to its end, on standard output unless that is for programs.

        Raises:
            DaemonFailed: A daemon ended by itself.
            RunFailed: The run did not complete.
        """
        view: View = _Silent() if as_json else view_for(False)
        first_round_s, ended = 0.0, pb.Run()
        with view:
            for status in statuses(self._target, run, self._lost):
                self._daemons.check()
                view.update(status)
                ended = status.run
                first_round_s = first_round_s or (self._elapsed() if ended.rounds_committed else 0.0)
        seconds = self._elapsed()
        if ended.state != "completed":
            raise RunFailed(f"the run is {ended.state}: {ended.reason}; logs are in {self.folder / 'logs'}")
        with connect(self._target) as admin:
            rounds = admin.rounds(run)
        return Outcome(self.folder, self.data_dir, ended, rounds, first_round_s, seconds)

    def _lost(self, error: Unreachable) -> None:
        self._daemons.check()

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"


class _Silent:
    """A view that shows nothing."""

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, status: pb.RunStatus) -> None:
        """Show nothing."""

    def lost(self, error: Unreachable) -> None:
        """Show nothing."""
