"""The process that tests fork daemons, workers and commands from: all is imported already, so a start costs little.

`python -m covey.testing.launch.fork_server --fd FD` is started by `covey.testing.launch.forks`. It has one thread, has
computed nothing and has opened no channel, so that a copy of it is as good as a new process. What it forks is an
orphan: its parent is whoever above takes care of orphans (a subreaper). A daemon becomes one itself and keeps a copy of
this process, a nursery, that forks its workers: they are its own children, and end with it, as those that it would
start.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import importlib
import os
import pkgutil
import runpy
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any

import numpy

from covey.plugins import GROUPS, forget_installed, installed
from covey.testing.launch.forking import (
    COMMAND,
    NURSERY,
    WORKER,
    Order,
    adopt_orphans,
    end_with_parent,
    serve,
    take_name,
)


def become(order: Order) -> Callable[[], object]:
    """Make this process what the order says; what it then runs."""
    os.setsid()
    if order.program != WORKER:  # a worker notices by itself that its daemon is gone
        end_with_parent()
    take_name(order.name)
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.env)
    time.tzset()  # it has read the environment before
    paths = order.env.get("PYTHONPATH", "").split(os.pathsep)
    if further := [path for path in paths if path and path not in sys.path]:
        sys.path[:0] = further
        forget_installed()
    numpy.random.seed()  # or all copies would draw the same
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
    if order.program == COMMAND:
        sys.argv = ["covey", *order.arguments]
        return _main_of(COMMAND)
    question, answer = pipe
    os.dup2(question, 0)
    os.close(question)
    sys.argv = [order.program, str(answer)]
    sys.modules.pop(order.program, None)  # it is run, as by `python -m`
    return partial(runpy.run_module, order.program, run_name="__main__", alter_sys=True)


def _main_of(module: str) -> Callable[[], None]:
    main: Callable[[], None] = importlib.import_module(module).main
    return main


def with_nursery(name: str) -> Order | None:
    """Leave a nursery behind from which is forked what this process starts; the order, in what is forked."""
    from covey.testing.launch.nursery import Nursery
    from covey.user_code import asking
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
    nursery = Nursery(ours, name)
    client.start_program, asking.run_program = nursery.start, nursery.answer
    return None


BESIDE = (
    "alembic.command",
    "alembic.config",
    "covey.testing.launch.nursery",
    "cryptography.hazmat.backends.openssl.backend",
    "encodings.idna",
    "numpy.random",
    "rich._emoji_codes",
    "sqlalchemy.dialects.postgresql.psycopg",
)
"""What programs import when they first need it, and that costs them time each."""
APART = ("covey.testing.", "covey.storage.sql.migrations.")
"""What no program imports as it starts, or only where its framework runs it."""


def _import_everything() -> None:
    for name in BESIDE:
        importlib.import_module(name)
    _import_with_rooms("covey")


def _import_with_rooms(name: str) -> None:
    package = importlib.import_module(name)
    for module in pkgutil.iter_modules(package.__path__, f"{name}."):
        if module.name.endswith(".__main__") or f"{module.name}.".startswith(APART):
            continue
        if module.ispkg:
            _import_with_rooms(module.name)
        else:
            importlib.import_module(module.name)


def _prepare() -> None:
    """What every daemon and every worker would make or read for itself."""
    from covey.worker.jobs.operations import OPERATIONS
    from covey.worker.jobs.serialization import adapter_of

    exchanged: list[Any] = [(operation.job, operation.result, operation.progress) for operation in OPERATIONS]
    for adapted in filter(None, chain(*exchanged)):
        adapter_of(adapted)
    for kind in GROUPS:
        installed(kind)


def main() -> None:
    """Import, and fork for whoever has the other end; in each process that is forked, be that."""
    parser = argparse.ArgumentParser(prog="python -m covey.testing.launch.fork_server")
    parser.add_argument("--fd", type=int, required=True)
    control = socket.socket(fileno=parser.parse_args().fd)
    gc.disable()
    _import_everything()
    _prepare()
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
    if order.program == COMMAND:
        inner = with_nursery(order.name)
        if inner is not None:
            run = become(inner)
    _end(_exit_code(run))


def _exit_code(run: Callable[[], object]) -> int:
    """What the process ends with; whatever else than `SystemExit` it ends by passes."""
    try:
        run()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    return 0


def _end(code: int) -> None:
    """End as Python does, but leave to the system the memory: to free each object would copy its page before."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
