"""Watches a federation's processes from outside, every 50 ms, in a thread that costs about 1 % of a core."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol

from benchmarks.measuring.proc import Usage, usage_of

Role = Literal["coordinator", "coordinator_worker", "node", "node_worker"]
PERIOD_S = 0.05
LOOK_FOR_WORKERS_S = 1.0
QUIET_WINDOW_S = 1.2
"""Longer than `LOOK_FOR_WORKERS_S`: a worker that was not seen yet shows up in every window."""
QUIET_CPU_S = 0.08
"""A federation whose processes together use less than this in a window has nothing left to warm up."""


@dataclass(frozen=True)
class Sample:
    """All processes at one moment.

    Attributes:
        at: Unix seconds.
        coordinator: Daemon and its worker together.
        node: The largest of the node daemons.
        worker: The largest of the nodes' workers.
        cpu_s: By role, seconds since the processes started.
    """

    at: float
    coordinator: Usage
    node: Usage
    worker: Usage
    cpu_s: dict[Role, float]

    @property
    def total_cpu_s(self) -> float:
        """CPU seconds of all daemons and workers."""
        return sum(self.cpu_s.values())


class Watched(Protocol):
    """Whose processes are watched."""

    @property
    def pids(self) -> dict[str, int]:
        """The daemons that run, by name; `coordinator` is the coordinator's."""

    @property
    def worker_pids(self) -> dict[str, int]:
        """Their workers, by the daemon's name."""


class Sampler:
    """Samples while its `with` block lasts."""

    def __init__(self, federation: Watched, period_s: float = PERIOD_S) -> None:
        self._federation, self._period_s = federation, period_s
        self._last: dict[tuple[Role, int], Usage] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self.samples: list[Sample] = []

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        targets: list[tuple[Role, int]] = []
        look_at = 0.0
        while not self._stop.wait(self._period_s):
            if time.monotonic() >= look_at:
                targets, look_at = self._targets(), time.monotonic() + LOOK_FOR_WORKERS_S
            self.samples.append(self._take(targets))

    def _targets(self) -> list[tuple[Role, int]]:
        processes: list[tuple[Role, int]] = []
        for name, pid in self._federation.pids.items():
            processes.append(("coordinator" if name == "coordinator" else "node", pid))
        for name, pid in self._federation.worker_pids.items():
            processes.append(("coordinator_worker" if name == "coordinator" else "node_worker", pid))
        return processes

    def _take(self, targets: Sequence[tuple[Role, int]]) -> Sample:
        at, now = time.time(), {target: usage_of(target[1]) for target in targets}
        alive = {target: usage for target, usage in now.items() if usage is not None}
        self._last.update(alive)
        cpu_s: dict[Role, float] = {}
        for (role, _pid), usage in self._last.items():
            cpu_s[role] = cpu_s.get(role, 0.0) + usage.cpu_s
        parts = [usage for (role, _), usage in alive.items() if role in ("coordinator", "coordinator_worker")]
        return Sample(at, sum(parts, Usage()), _largest(alive, "node"), _largest(alive, "node_worker"), cpu_s)

    def wait_quiet(self, timeout_s: float = 60.0) -> list[Sample]:
        """Wait until every process has warmed up and does nothing.

        Returns:
            The samples of the first quiet window (1.2 s) from now on, the earliest first.

        Raises:
            TimeoutError: They are still busy.
        """
        window = max(2, round(QUIET_WINDOW_S / self._period_s))
        already = len(self.samples)
        give_up_at = time.monotonic() + timeout_s
        while time.monotonic() < give_up_at:
            recent = self.samples[already:][-window:]
            if len(recent) == window and recent[-1].total_cpu_s - recent[0].total_cpu_s < QUIET_CPU_S:
                return recent
            time.sleep(self._period_s)
        raise TimeoutError(f"the federation was still busy after {timeout_s:g} s")


def _largest(usages: dict[tuple[Role, int], Usage], role: Role) -> Usage:
    of_role = [usage for (its_role, _), usage in usages.items() if its_role == role]
    return max(of_role, key=lambda usage: usage.private_mb, default=Usage())


def cpu_between(samples: Sequence[Sample], start: float, end: float) -> dict[Role, float]:
    """CPU seconds by role between two moments (Unix seconds), between the samples nearest to them."""
    if not samples:
        return {}
    first = min(samples, key=lambda sample: abs(sample.at - start))
    last = min(samples, key=lambda sample: abs(sample.at - end))
    return {role: used - first.cpu_s.get(role, 0.0) for role, used in last.cpu_s.items()}
