"""What a strike does. Each function does it and returns how it is undone, or None if nothing is left to undo."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import psutil

from covey.testing.chaos.schedule import Strike
from covey.testing.launch.processes import Daemon
from covey.testing.relay import Relay

Undo = Callable[[], object]
MOST_CUT_UPDATES = 2.5
"""Where a transfer is cut: after so many updates, or models, at most."""
MOST_DELAY_S = 0.3
BETWEEN_SIGNALS_S = 0.5
STOP_S = 30.0
KEPT = frozenset({"identity", "node.toml"})
"""What a node still has after `lose-data`: who it is, and what its operator wrote."""


class FaultError(Exception):
    """A daemon did not do what it owes to whoever strikes it."""


class Cable(Protocol):
    """What stands between a daemon and others; `covey.testing.relay.RelayThread` says what each member does."""

    # ruff: noqa: D102

    def partition(self) -> None: ...
    def heal(self) -> None: ...
    def do(self, action: Callable[[Relay], None]) -> object: ...


class Place(Protocol):
    """What strikes need of the federation that is struck."""

    @property
    def update_bytes(self) -> int:
        """Size of what is transferred."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Every daemon."""
        ...

    def daemon(self, name: str) -> Daemon:
        """The newest process of that name."""
        ...

    def folder(self, name: str) -> Path:
        """A daemon's data directory."""
        ...

    def relay(self, name: str) -> Cable:
        """All that connects a node with others."""
        ...

    def halves(self, fraction: float) -> Cable:
        """All that connects two halves of the nodes; which those are follows from a number in [0, 1)."""
        ...

    def start(self, name: str) -> None:
        """Start a daemon again."""
        ...

    def processes(self, name: str) -> Sequence[int]:
        """A daemon and its worker."""
        ...


def kill(place: Place, strike: Strike) -> Undo:
    """Kill -9 of a daemon; its worker ends by itself."""
    place.daemon(strike.target).kill()
    return lambda: place.start(strike.target)


def kill_worker(place: Place, strike: Strike) -> None:
    """Kill -9 of a worker, if there is one just now."""
    for pid in place.processes(strike.target)[1:]:
        _send(pid, signal.SIGKILL)


def kill_everything(place: Place, strike: Strike) -> Undo:
    """Kill -9 of all daemons."""
    for name in place.names:
        place.daemon(name).kill()

    def start_all() -> None:
        for name in place.names:
            place.start(name)

    return start_all


def suspend(place: Place, strike: Strike) -> Undo:
    """SIGSTOP of a daemon and its worker."""
    return _suspended(place, [strike.target])


def suspend_everything(place: Place, strike: Strike) -> Undo:
    """SIGSTOP of all daemons and workers."""
    return _suspended(place, place.names)


def _suspended(place: Place, names: Sequence[str]) -> Undo:
    pids = [pid for name in names for pid in place.processes(name)]
    for pid in pids:
        _send(pid, signal.SIGSTOP)

    def resume() -> None:
        for pid in pids:
            _send(pid, signal.SIGCONT)

    return resume


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, number)


def cut_link(place: Place, strike: Strike) -> Undo:
    """Every connection of a node is reset, until it is over."""
    return _cut(place.relay(strike.target))


def cut_in_halves(place: Place, strike: Strike) -> Undo:
    """Every connection between two halves of the nodes is reset, until it is over."""
    return _cut(place.halves(strike.fraction))


def _cut(cable: Cable) -> Undo:
    cable.partition()
    return cable.heal


def cut_transfer(place: Place, strike: Strike) -> None:
    """The connection that carries a byte to come is reset there."""
    after = 1 + int(strike.fraction * MOST_CUT_UPDATES * place.update_bytes)
    place.relay(strike.target).do(lambda relay: relay.cut_once(strike.direction, after))


def stall_link(place: Place, strike: Strike) -> Undo:
    """Nothing passes in one direction."""
    relay = place.relay(strike.target)
    relay.do(lambda r: r.stall(strike.direction))
    return lambda: relay.do(lambda r: r.resume(strike.direction))


def slow_link(place: Place, strike: Strike) -> Undo:
    """What passes in one direction is late."""
    relay = place.relay(strike.target)
    relay.do(lambda r: r.delay(strike.direction, strike.fraction * MOST_DELAY_S))
    return lambda: relay.do(lambda r: r.delay(strike.direction, 0.0))


def terminate_twice(place: Place, strike: Strike) -> Undo:
    """SIGTERM and SIGTERM."""
    return _signal_twice(place, strike, signal.SIGTERM)


def interrupt_and_terminate(place: Place, strike: Strike) -> Undo:
    """SIGINT and SIGTERM."""
    return _signal_twice(place, strike, signal.SIGINT)


def _signal_twice(place: Place, strike: Strike, first: signal.Signals) -> Undo:
    daemon = place.daemon(strike.target)
    was_ready = "ready" in daemon.printed or "connected" in daemon.printed
    daemon.send(first)
    time.sleep(strike.fraction * BETWEEN_SIGNALS_S)
    daemon.send(signal.SIGTERM)

    def start_again() -> None:
        code = daemon.wait(STOP_S)
        if was_ready and code != 0:
            raise FaultError(f"{strike.target} ended with exit code {code} after two signals")
        place.start(strike.target)

    return start_again


def lose_data(place: Place, strike: Strike) -> Undo:
    """A node is killed, and forgets everything but who it is."""
    place.daemon(strike.target).kill()
    for path in place.folder(strike.target).iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return lambda: place.start(strike.target)


def full_disk(place: Place, strike: Strike) -> Undo:
    """No file of a daemon and its worker may grow (RLIMIT_FSIZE, as a quota), until it is over."""
    limited = []
    for pid in place.processes(strike.target):
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            limited.append((process, process.rlimit(resource.RLIMIT_FSIZE)))
            process.rlimit(resource.RLIMIT_FSIZE, (0, limited[-1][1][1]))

    def give_room() -> None:
        for process, limit in limited:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.rlimit(resource.RLIMIT_FSIZE, limit)

    return give_room


DOERS: dict[str, Callable[[Place, Strike], Undo | None]] = {
    "kill-coordinator": kill,
    "kill-node": kill,
    "kill-worker": kill_worker,
    "kill-everything": kill_everything,
    "suspend": suspend,
    "suspend-everything": suspend_everything,
    "cut-link": cut_link,
    "cut-transfer": cut_transfer,
    "stall-link": stall_link,
    "slow-link": slow_link,
    "terminate-twice": terminate_twice,
    "interrupt-and-terminate": interrupt_and_terminate,
    "lose-data": lose_data,
    "cut-in-halves": cut_in_halves,
    "full-disk": full_disk,
}
