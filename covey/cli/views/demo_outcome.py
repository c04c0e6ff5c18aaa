"""What `covey demo` does with a federation: it trains one model, to be watched, and says what that came to."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from covey.cli.views.run_views import view_for
from covey.client.errors import Unreachable
from covey.client.experiments.local_federation import LocalFederation
from covey.client.target import announced_address
from covey.client.values import Round, Run
from covey.coordinator.config import DATABASE
from covey.errors import RunFailed

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

[keep]
updates = {rounds}
"""


@dataclass(frozen=True)
class Outcome:
    """What a demonstration came to."""

    folder: Path
    data_dir: Path
    """The coordinator's."""
    server: str
    """Where the coordinator listened, and the nodes look for it."""
    run: Run
    rounds: list[Round]
    first_round_s: float
    """From the command to the first committed round, in seconds."""
    seconds: float
    """From the command to the end of the run."""

    @property
    def store(self) -> Path:
        """The record's database."""
        return self.data_dir / DATABASE


def demonstrate(federation: LocalFederation, nodes: int, rounds: int, started: float, *, quiet: bool) -> Outcome:
    """Submit a run, which begins when all nodes are there, and show it to its end.

    Args:
        federation: Where.
        nodes: How many nodes it has.
        rounds: How many rounds to train.
        started: When the command began (`time.monotonic`).
        quiet: Show nothing.

    Raises:
        DaemonFailed: A daemon ended by itself.
        RunFailed: The run did not complete.
    """
    spec = SPEC.format(nodes=nodes, rounds=rounds)
    (federation.folder / SPEC_FILE).write_text(spec)
    with federation.connect() as connection:
        run, first_round_s = connection.submit(spec), 0.0
        with contextlib.nullcontext() if quiet else view_for(connection) as view:
            for change in connection.watch(run, on_lost=lambda error: _lost(federation, error)):
                federation.check()
                if view is not None:
                    view.update(change)
                run = change.run
                if run.rounds_committed and not first_round_s:
                    first_round_s = time.monotonic() - started
        seconds = time.monotonic() - started
        if run.state != "completed":
            raise RunFailed(f"the run is {run.state}: {run.reason}; logs are in {federation.logs}")
        server, trained = announced_address(federation.data_dir) or "", connection.rounds(run)
        return Outcome(federation.folder, federation.data_dir, server, run, trained, first_round_s, seconds)


def _lost(federation: LocalFederation, error: Unreachable) -> None:
    federation.check()
