"""The process that tests fork daemons, workers and commands from: all is imported already, so a start costs little.

`python -m covey.testing.fork_server --fd FD` is started by `covey.testing.forks`. It has one thread, has computed
nothing and has opened no channel, so that a copy of it is as good as a new process. What it forks is an orphan: its
parent is whoever above takes care of orphans (a subreaper). A daemon becomes one itself and keeps a copy of this
process, a nursery, that forks its workers: they are its own children, and end with it, as those that it would start.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_ORDER_BYTES = 1 << 17
NURSERY = "-nursery"
WORKER = "covey.worker"
_SET_NAME, _SET_SUBREAPER = 15, 36
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Order:
    """What a copy becomes: a program (`covey.cli.main` or `covey.worker`), with its files."""

    program: str
    arguments: list[str]
    env: dict[str, str]
    folder: str
    name: str
    """How the system calls the process (`/proc/PID/comm`), at most 15 bytes: by it whoever is left over is found."""
    files: list[int]
    """Standard output and error; a worker's pipe before them."""


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own."""
    if _LIBC.prctl(_SET_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this process cannot take care of orphans")


def take_name(name: str) -> None:
    """Have the system call this process so; what it forks has the name, too."""
    _LIBC.prctl(_SET_NAME, name.encode()[:15], 0, 0, 0)


def send_order(control: socket.socket, order: dict[str, Any], files: list[int]) -> int:
    """Have a process forked; its id. Blocks for some milliseconds.

    Raises:
        OSError: The server is gone.
    """
    socket.send_fds(control, [json.dumps(order).encode()], files)
    answer = control.recv(64)
    if not answer:
        raise ConnectionResetError("the process that others are forked from is gone")
    return int(answer)


def serve(control: socket.socket) -> Order | None:
    """Fork a process for each order, and return in it; None: nobody gives orders any more."""
    while True:
        text, files, *_ = socket.recv_fds(control, MAX_ORDER_BYTES, 4)
        if not text:
            return None
        pid = _fork_orphan()
        if pid == 0:
            control.close()
            return Order(**json.loads(text), files=list(files))
        for file in files:
            os.close(file)
        control.send(str(pid).encode())


def _fork_orphan() -> int:
    """Fork a process that has a subreaper as its parent from the beginning; 0 in it, else its id."""
    (told, tell), (wait, go) = os.pipe(), os.pipe()
    middle = os.fork()
    if middle == 0:
        child = os.fork()
        if child:
            os.write(tell, str(child).encode())
            os._exit(0)
        for end in (told, tell, go):
            os.close(end)
        os.read(wait, 1)  # until the process in the middle has ended, and the server lets go
        os.close(wait)
        return 0
    os.waitpid(middle, 0)
    pid = int(os.read(told, 64))
    for end in (told, tell, wait, go):
        os.close(end)
    return pid


def become(order: Order) -> Callable[[], None]:
    """Make this process what the order says; what it then runs."""
    os.setsid()
    take_name(order.name)
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.env)
    paths = order.env.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [path for path in paths if path and path not in sys.path]
    *pipe, output, error = order.files
    for file, standard in ((output, 1), (error, 2)):
        os.dup2(file, standard)
        os.close(file)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    importlib.reload(importlib.import_module("covey.faults"))  # they are read from the environment once
    if order.program == WORKER:
        sys.argv = [WORKER, *order.arguments, "--fd", str(pipe[0])]
        return _main_of("covey.worker.__main__")
    sys.argv = ["covey", *order.arguments]
    return _main_of("covey.cli.main")


def _main_of(module: str) -> Callable[[], None]:
    main: Callable[[], None] = importlib.import_module(module).main
    return main


def with_nursery(name: str) -> Order | None:
    """Leave a nursery behind from which this process's workers are forked; the order, in such a worker."""
    from covey.testing.forks import Nursery
    from covey.worker.client import client

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    adopt_orphans()
    if os.fork() == 0:
        ours.close()
        take_name(name[: 15 - len(NURSERY)] + NURSERY)
        order = serve(theirs)
        if order is None:
            os._exit(0)
        return order
    theirs.close()
    client.start_program = Nursery(ours, name).start
    return None


def _import_everything() -> None:
    for module in (
        "covey.cli.main",
        "covey.cli.commands.coordinator",
        "covey.cli.commands.node",
        "covey.cli.commands.run",
        "covey.cli.commands.round",
        "covey.cli.commands.store",
        "covey.cli.commands.simulate",
        "covey.coordinator.daemon",
        "covey.node.daemon",
        "covey.testing.forks",
        "covey.worker.__main__",
        "covey.worker.program.loop",
        "covey.learning.tasks.digits",
        "covey.learning.tasks.synthetic",
    ):
        importlib.import_module(module)


def main() -> None:
    """Import, and fork for whoever has the other end; in each process that is forked, be that."""
    parser = argparse.ArgumentParser(prog="python -m covey.testing.fork_server")
    parser.add_argument("--fd", type=int, required=True)
    control = socket.socket(fileno=parser.parse_args().fd)
    gc.disable()
    _import_everything()
    gc.freeze()
    if len(os.listdir("/proc/self/task")) != 1 or threading.active_count() != 1:
        raise RuntimeError("importing has started a thread: a copy of this process would not be whole")
    control.send(b"ready")
    order = serve(control)
    if order is not None:
        _run(order)


def _run(order: Order) -> None:
    gc.enable()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run = become(order)
    if order.program != WORKER:
        inner = with_nursery(order.name)
        if inner is not None:
            run = become(inner)
    run()


if __name__ == "__main__":
    main()
