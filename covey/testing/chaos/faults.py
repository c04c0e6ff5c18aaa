"""What a strike does. Each function does it and returns how it is undone, or None if nothing is left to undo."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence

from covey.testing.chaos.arena import Arena
from covey.testing.chaos.schedule import Strike

Undo = Callable[[], None]
MOST_CUT_UPDATES = 2.5
"""Where a transfer is cut: after so many updates, or models, at most."""
MOST_DELAY_S = 0.3
BETWEEN_SIGNALS_S = 0.5
STOP_S = 30.0
KEPT = frozenset({"identity", "node.toml"})
"""What a node still has after `lose-data`: who it is, and what its operator wrote."""


class FaultError(Exception):
    """A daemon did not do what it owes to whoever strikes it."""


def kill(arena: Arena, strike: Strike) -> Undo:
    """Kill -9 of a daemon; its worker ends by itself."""
    arena.daemon(strike.target).kill()
    return lambda: arena.start(strike.target)


def kill_worker(arena: Arena, strike: Strike) -> None:
    """Kill -9 of a worker, if there is one just now."""
    with contextlib.suppress(KeyError, ProcessLookupError):
        arena.federation.kill_worker(strike.target)


def kill_everything(arena: Arena, strike: Strike) -> Undo:
    """Kill -9 of all daemons."""
    for name in arena.names:
        arena.daemon(name).kill()

    def start_all() -> None:
        for name in arena.names:
            arena.start(name)

    return start_all


def suspend(arena: Arena, strike: Strike) -> Undo:
    """SIGSTOP of a daemon and its worker."""
    return _suspended(arena, [strike.target])


def suspend_everything(arena: Arena, strike: Strike) -> Undo:
    """SIGSTOP of all daemons and workers."""
    return _suspended(arena, arena.names)


def _suspended(arena: Arena, names: Sequence[str]) -> Undo:
    pids = [pid for name in names for pid in arena.signal_all_of(name, signal.SIGSTOP)]

    def resume() -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    return resume


def cut_link(arena: Arena, strike: Strike) -> Undo:
    """Every connection of a node is reset, until it is over."""
    relay = arena.relay(strike.target)
    relay.partition()
    return relay.heal


def cut_transfer(arena: Arena, strike: Strike) -> None:
    """The connection that carries a byte to come is reset there."""
    arena.relay(strike.target).cut_once(
        strike.direction, 1 + int(strike.fraction * MOST_CUT_UPDATES * arena.update_bytes)
    )


def stall_link(arena: Arena, strike: Strike) -> Undo:
    """Nothing passes in one direction."""
    relay = arena.relay(strike.target)
    relay.do(lambda r: r.stall(strike.direction))
    return lambda: relay.do(lambda r: r.resume(strike.direction))


def slow_link(arena: Arena, strike: Strike) -> Undo:
    """What passes in one direction is late."""
    relay = arena.relay(strike.target)
    relay.do(lambda r: r.delay(strike.direction, strike.fraction * MOST_DELAY_S))
    return lambda: relay.do(lambda r: r.delay(strike.direction, 0.0))


def terminate_twice(arena: Arena, strike: Strike) -> Undo:
    """SIGTERM and SIGTERM."""
    return _signal_twice(arena, strike, signal.SIGTERM)


def interrupt_and_terminate(arena: Arena, strike: Strike) -> Undo:
    """SIGINT and SIGTERM."""
    return _signal_twice(arena, strike, signal.SIGINT)


def _signal_twice(arena: Arena, strike: Strike, first: signal.Signals) -> Undo:
    daemon = arena.daemon(strike.target)
    was_ready = "ready" in daemon.printed or "connected" in daemon.printed
    daemon.send(first)
    time.sleep(strike.fraction * BETWEEN_SIGNALS_S)
    daemon.send(signal.SIGTERM)

    def start_again() -> None:
        code = daemon.wait(STOP_S)
        if was_ready and code != 0:
            raise FaultError(f"{strike.target} ended with exit code {code} after two signals")
        arena.start(strike.target)

    return start_again


def lose_data(arena: Arena, strike: Strike) -> Undo:
    """A node is killed, and forgets everything but who it is."""
    arena.daemon(strike.target).kill()
    for path in arena.federation.node_dir(arena.index(strike.target)).iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return lambda: arena.start(strike.target)


DOERS: dict[str, Callable[[Arena, Strike], Undo | None]] = {
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
}
