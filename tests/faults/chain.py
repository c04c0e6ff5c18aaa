"""One run along many fault points: whenever a daemon has died at its point, it is started again with its next one."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from covey.testing.federation import TERMINAL, Federation
from covey.testing.launch.processes import Daemon

POLL_S = 0.05
REJOINS = "rejoin_s = 120.0"
PATIENT = f"{REJOINS}\ndeadline_s = 1800.0\nhard_deadline_s = 3600.0"
"""Nobody is given up while others are started."""


class Chain:
    """The points of one daemon, in their order.

    Args:
        points: One start each; several separated by commas are for the same start.
        start: Starts the daemon with this environment.
    """

    def __init__(self, points: Sequence[str], start: Callable[[dict[str, str]], Daemon]) -> None:
        self.left, self._start = deque(points), start
        self.daemon = self._next()

    def _next(self) -> Daemon:
        return self._start({"COVEY_FAULTS": self.left[0]} if self.left else {})

    def go_on(self) -> None:
        """Start the daemon again if it has died at its point."""
        if self.daemon.alive or not self.left:
            return
        assert self.daemon.exit_code == -9, self.daemon.tail()
        self.left.popleft()
        self.daemon = self._next()


def run_along(
    federation: Federation,
    text: str,
    *,
    coordinator: Sequence[str] = (),
    node: Sequence[str] = (),
    index: int = 1,
    options: Sequence[str] = (),
    timeout_s: float = 240.0,
) -> dict[str, Any]:
    """Submit a run, and kill the coordinator and one node at each of their points; the completed run.

    Args:
        federation: Running; its daemons run without faults afterwards.
        text: The specification, with rounds enough for all points.
        coordinator: The coordinator's points.
        node: The node's.
        index: Which node.
        options: The coordinator's.
        timeout_s: For all of it.
    """
    chains = []
    if coordinator:
        federation.stop_coordinator()
        chains.append(Chain(coordinator, lambda env: federation.start_coordinator(env=env, options=options)))
    if node:
        federation.stop_node(index)
        chains.append(Chain(node, lambda env: federation.start_node(index, env=env)))
    federation.wait_connected(len(federation.nodes))
    run = federation.submit(text)
    shown, give_up_at = federation.show(run), time.monotonic() + timeout_s
    while shown["state"] not in TERMINAL:
        assert time.monotonic() < give_up_at, f"{shown}, still to come: {[list(chain.left) for chain in chains]}"
        time.sleep(POLL_S)
        for chain in chains:
            chain.go_on()
        with contextlib.suppress(ConnectionError):
            shown = federation.admin.run(run)
    assert [list(chain.left) for chain in chains] == [[] for _ in chains], "points that the run did not pass"
    federation.wait_connected(len(federation.nodes))
    return federation.wait(run)
