"""Orders to fork a process, and carrying them out: the lowest part of how tests start programs."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
from dataclasses import dataclass
from typing import Any

MAX_ORDER_BYTES = 1 << 17
NURSERY = "-nursery"
COMMAND, WORKER = "covey.cli.main", "covey.worker"
_SET_DEATH_SIGNAL, _SET_NAME, _SET_SUBREAPER = 1, 15, 36
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Order:
    """What a copy becomes, with its files: a command, a worker, or a module that is run to answer a question."""

    program: str
    arguments: list[str]
    env: dict[str, str]
    folder: str
    name: str
    """How the system calls the process (`/proc/PID/comm`), at most 15 bytes: by it whoever is left over is found."""
    files: list[int]
    """Standard output and error; before them a worker's pipe, or the files of a question and of its answer."""


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own."""
    if _LIBC.prctl(_SET_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this process cannot take care of orphans")


def end_with_parent() -> None:
    """Have the system kill this process when its parent ends."""
    _LIBC.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


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
        try:
            text, files, *_ = socket.recv_fds(control, MAX_ORDER_BYTES, 4)
        except ConnectionResetError:  # it was killed before it had read an answer
            return None
        if not text:
            return None
        pid = _fork_orphan()
        if pid == 0:
            control.close()
            return Order(**json.loads(text), files=list(files))
        for file in files:
            os.close(file)
        with contextlib.suppress(ConnectionError):  # whoever gave the order may be gone: the next one says so
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
