"""A sweep of 20 trials on digits that is killed twice (kill -9) beside the same sweep undisturbed: are they the same?

    python -m benchmarks.measuring.killed_sweep
    python -m benchmarks.measuring.killed_sweep --trials 6 --kills 3 11

Real processes of `covey sweep run`, simulated runs of 5 nodes, TPE, two seeds, halving after 1 and 3 of 9 rounds. It is
killed a moment after so many events are on record, in the middle of a run. Compared are tables, decisions and models.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from covey.client.connection import connect
from covey.client.sweeps.record import FILE

SWEEP = """
[specification]
name = "digits"
seed = 1
[specification.task]
name = "digits"
[specification.training]
batch_size = 32
local_epochs = 1
optimizer = "momentum"
[specification.rounds]
count = 9
min_nodes = 5
[sweep]
method = "tpe"
trials = {trials}
seeds = 2
[sweep.space]
training.learning_rate = {{ log_uniform = [0.001, 1.0] }}
training.momentum = {{ uniform = [0.0, 0.95] }}
training.batch_size = {{ choice = [16, 32, 64] }}
[sweep.prune]
method = "halving"
rungs = [1, 3]
factor = 3
"""
NODES = 5
POLL_S, IN_A_RUN_S = 0.05, 0.4


def begun(file: Path, folder: Path) -> subprocess.Popen[bytes]:
    """A process that runs the sweep."""
    command = [sys.executable, "-m", "covey", "sweep", "run", str(file), "--nodes", str(NODES), "--folder", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ended(process: subprocess.Popen[bytes]) -> None:
    """Wait for its end.

    Raises:
        RuntimeError: It failed.
    """
    if process.wait():
        raise RuntimeError(f"covey sweep run ended with exit code {process.returncode}")


def killed_at(process: subprocess.Popen[bytes], folder: Path, events: int) -> int:
    """Kill it when so many events are on record; how many were.

    Raises:
        RuntimeError: It ended before that.
    """
    while count_of(folder) < events:
        if process.poll() is not None:
            raise RuntimeError(f"the sweep ended with {count_of(folder)} events, before it could be killed")
        time.sleep(POLL_S)
    time.sleep(IN_A_RUN_S)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return count_of(folder)


def count_of(folder: Path) -> int:
    """How many events are on record."""
    path = folder / FILE
    return max(path.read_bytes().count(b"\n") - 1, 0) if path.exists() else 0


def events_of(folder: Path) -> list[dict[str, Any]]:
    """The record without the ids of runs, which are drawn."""
    events = [json.loads(line) for line in (folder / FILE).read_text().splitlines()]
    return [{key: value for key, value in event.items() if key != "run"} for event in events]


def models_of(folder: Path) -> dict[str, str]:
    """The digest of each run's newest model.

    Raises:
        RuntimeError: A run was begun twice.
    """
    models: dict[str, str] = {}
    for data_dir in sorted((folder / "runs").iterdir()):
        with connect(data_dir) as record:
            for run in record.runs():
                if run.name in models:
                    raise RuntimeError(f"{run.name} was begun twice")
                models[run.name] = record.version(run.run).model_sha256
    return models


def table_of(folder: Path) -> str:
    """What `covey sweep show` prints."""
    command = [sys.executable, "-m", "covey", "sweep", "show", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; exit code 1 if anything differs."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.measuring.killed_sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--kills", type=int, nargs="+", default=[25, 70], help="after so many events")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="covey-sweep-") as name:
        file, whole, killed = (Path(name) / part for part in ("digits.toml", "whole", "killed"))
        file.write_text(SWEEP.format(trials=given.trials))
        for events in given.kills:
            print(f"killed with {killed_at(begun(file, killed), killed, events)} events on record", flush=True)
        ended(begun(file, killed))
        ended(begun(file, whole))
        facts = {
            "the same table": table_of(killed) == table_of(whole),
            "the same decisions": events_of(killed) == events_of(whole),
            "the same models": models_of(killed) == models_of(whole),
        }
        print(table_of(killed))
        for text, is_so in facts.items():
            print(f"{text}: {'yes' if is_so else 'NO'}")
        print(f"{count_of(killed)} events, {len(models_of(killed))} runs, each begun once")
        return 0 if all(facts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
