"""`python -m covey.worker`: started by a daemon, never by hand."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import fcntl
import gc
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from covey.errors import WorkerError
from covey.telemetry import configure_logging, import_without_rich
from covey.worker.jobs.files import STACKS
from covey.worker.program.pipe import Channel
from covey.worker.program.sandbox import hide, limit_memory


def main() -> None:
    """Open the pipe at once (so that the daemon's end is seen while torch is imported), then work."""
    parser = argparse.ArgumentParser(prog="python -m covey.worker", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the inherited socket to the daemon")
    parser.add_argument("--data-dir", type=Path, required=True, help="one worker at a time works in it")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--log-name", default="this program's output", help="what people call it")
    parser.add_argument("--log-format", choices=["console", "json"], default="console")
    parser.add_argument("--hide", type=Path, action="append", default=[], help="a folder that it must not read")
    parser.add_argument("--memory-bytes", type=int, help="most memory of its own")
    options = parser.parse_args()
    confinement = confined(options.hide, options.memory_bytes, options.data_dir)  # before there is a second thread
    channel = Channel(options.fd)
    with contextlib.suppress(OSError):  # the folder may be gone
        sys.path.append(str(Path.cwd()))  # for the user's tasks; behind everything else, so that it hides nothing
    import_without_rich()
    configure_logging(options.log_format)
    stacks = (options.data_dir / STACKS).open("w")
    faulthandler.register(signal.SIGUSR1, stacks, all_threads=True)  # the daemon asks where a job hangs
    sys.stdout = sys.stderr
    confinement.say()
    gc.disable()  # importing torch makes a million objects that stay: looking through them costs a sixth of it
    from covey.worker.program.loop import Program

    gc.freeze()
    gc.enable()
    try:
        program = Program(
            channel,
            device=options.device,
            threads=options.threads,
            log_name=options.log_name,
            confinement=confinement.text,
        )
    except WorkerError as error:
        channel.refuse(error)
        sys.exit(str(error))
    with (options.data_dir / LOCK).open("a") as lock:
        _only_one(lock)
        program.run()


LOCK = "worker.lock"


@dataclass(frozen=True)
class Confined:
    """What became of the worker's confinement: its folders are hidden by this, and why not by something better."""

    hidden: Sequence[Path]
    by: str
    reason: str

    @property
    def text(self) -> str:
        """For people; empty: nothing was to be hidden."""
        names = " and ".join(f"{folder.name}/" for folder in self.hidden)
        if not self.hidden:
            return ""
        if self.by:
            return f"cannot read {names} ({self.by})" + (f"; {self.reason}" if self.reason else "")
        return f"NOT confined, it can read {names}: {self.reason}"

    def say(self) -> None:
        """In the log."""
        import structlog

        if self.hidden:
            log = structlog.get_logger(room="worker")
            (log.info if self.by else log.warning)("the worker", confinement=self.text)


def confined(hidden: Sequence[Path], memory_bytes: int | None, data_dir: Path) -> Confined:
    """Confine this process."""
    os.umask(0o077)
    if memory_bytes is not None:
        limit_memory(memory_bytes)
    for name in (LOCK, STACKS):  # what is there before can be used afterwards
        (data_dir / name).touch()
    return Confined(hidden, *hide(hidden, data_dir)) if hidden else Confined(hidden, "", "")


def _only_one(lock: IO[str]) -> None:
    import structlog

    # After a crash of the daemon its old worker may still be at its last write, into the same scratch files.
    # A POSIX lock ends with the process, and processes that the user's code forks do not inherit it.
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        structlog.get_logger(room="worker").warning("waiting for another worker to end", lock=lock.name)
        fcntl.lockf(lock, fcntl.LOCK_EX)


if __name__ == "__main__":
    main()
