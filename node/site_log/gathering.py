"""Which lines about a run a node shares: gathered as they come, in bounded memory, handed out at a bounded rate.

Pure: no clock, no I/O. What the worker prints belongs to the run that it worked for last. Lines that are too many are
counted and left out; what happens to the run does not depend on any of this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal

from covey import messages as msg
from covey.node.site_log.works import Work
from covey.texts import printable
from covey.wire.listeners.buckets import Bucket

Sharing = Literal["none", "failures", "all"]
MAX_LINE = 1000
"""Characters of a line; the rest is left out."""
RECENT_LINES = 60
"""Of what the worker printed last, so many lines go with a failure."""
TRACEBACK_LINES = 100
"""Of a traceback; of a longer one the first and the last lines."""
WAITING_LINES = 1000
"""While there is no connection, or too many come."""
AT_ONCE, PER_S = 1000, 10.0
"""How many lines leave at once, and how many a second after that."""
MESSAGE_LINES = 100
MAX_RUNS = 64
"""For so many runs it is remembered that they were told what is shared."""


class Gathering:
    """The lines of one node.

    Args:
        sharing: What the operator shares.
        scrub: What is done to each text before it leaves.
        now: Seconds at the beginning, as in `due`.
    """

    def __init__(self, sharing: Sharing, scrub: Callable[[str], str], now: float) -> None:
        self._sharing, self._scrub = sharing, scrub
        self._room = Bucket(AT_ONCE, PER_S, AT_ONCE, now)
        self._works: dict[str, Work] = {}
        self._told: dict[str, None] = {}
        self._untold: dict[str, None] = {}
        self._recent: deque[tuple[str, msg.SiteLogLine]] = deque(maxlen=RECENT_LINES)
        self._failures: deque[tuple[str, int, tuple[msg.SiteLogLine, ...]]] = deque(maxlen=8)
        self._waiting: deque[tuple[str, msg.SiteLogLine]] = deque()
        self._left_out: dict[str, int] = {}

    def began(self, run: str, number: int, worker: str = "") -> None:
        """One of the node's workers works for a round of a run now."""
        self._works[worker] = Work(run, number)
        if run not in self._told:
            self._told[run] = self._untold[run] = None
            if len(self._told) > MAX_RUNS:
                del self._told[next(iter(self._told))]

    def connected(self) -> None:
        """A session began: what is shared is said once more, as the coordinator may be another one."""
        self._told.clear()
        for worker, work in self._works.items():
            self.began(work.run, work.round, worker)

    def printed(self, data: bytes, at: float, worker: str = "") -> None:
        """A worker printed something."""
        work = self._works.get(worker)
        if self._sharing == "none" or work is None:
            return
        for text in work.lines(data):
            self._take(work.run, self._line(at, work.round, "output", text))

    def logged(self, run: str, number: int, text: str, at: float) -> None:
        """The node's own log says something of a run."""
        if self._sharing != "none":
            self._take(run, self._line(at, number, "node", text))

    def failed(self, run: str, number: int, text: str, traceback: str, at: float) -> None:
        """Work for a run failed; what the worker has printed goes with it when this is next due."""
        if self._sharing == "none":
            return
        lines = [self._line(at, number, "failure", text)]
        lines += [self._line(at, number, "traceback", line) for line in _middle_cut(traceback.splitlines())]
        self._failures.append((run, number, tuple(lines)))

    def due(self, now: float) -> list[msg.SiteLog]:
        """What is to be sent now; it is not kept."""
        while self._failures:
            self._put_failure(*self._failures.popleft())
        told = [msg.SiteLog(run, self._sharing) for run in self._untold]
        self._untold.clear()
        by_run: dict[str, list[msg.SiteLogLine]] = {}
        budget = int(self._room.refill(now))
        for _ in range(min(budget, len(self._waiting))):
            run, line = self._waiting.popleft()
            by_run.setdefault(run, []).append(line)
        self._room.take(now, sum(map(len, by_run.values())))
        if not self._waiting:
            for run, count in self._left_out.items():
                text = f"[{count} lines were left out: there were too many]"
                by_run.setdefault(run, []).append(msg.SiteLogLine(0.0, 0, "node", text))
            self._left_out.clear()
        return told + [message for run, lines in by_run.items() for message in self._messages(run, lines)]

    def _messages(self, run: str, lines: list[msg.SiteLogLine]) -> Iterable[msg.SiteLog]:
        for first in range(0, len(lines), MESSAGE_LINES):
            yield msg.SiteLog(run, self._sharing, tuple(lines[first : first + MESSAGE_LINES]))

    def _line(self, at: float, number: int, kind: str, text: str) -> msg.SiteLogLine:
        cut = text[: 4 * MAX_LINE]  # scrubbing takes time
        return msg.SiteLogLine(at, number, kind, self._scrub(printable(cut))[:MAX_LINE])

    def _take(self, run: str, line: msg.SiteLogLine) -> None:
        if self._sharing == "all":
            self._put(run, line)
        else:
            self._recent.append((run, line))

    def _put_failure(self, run: str, number: int, lines: tuple[msg.SiteLogLine, ...]) -> None:
        in_traceback = {line.text.strip() for line in lines}
        recent = [line for of, line in self._recent if (of, line.round) == (run, number)]
        for line in recent:
            if line.text.strip() not in in_traceback:  # which the worker's log has, too
                self._put(run, line)
        rest = [item for item in self._recent if item[0] != run or item[1].round > number]
        self._recent.clear()
        self._recent.extend(rest)
        for line in lines:
            self._put(run, line)

    def _put(self, run: str, line: msg.SiteLogLine) -> None:
        if len(self._waiting) < WAITING_LINES:
            self._waiting.append((run, line))
        elif run in self._left_out or len(self._left_out) < MAX_RUNS:
            self._left_out[run] = self._left_out.get(run, 0) + 1


def _middle_cut(lines: list[str]) -> list[str]:
    if len(lines) <= TRACEBACK_LINES:
        return lines
    half = TRACEBACK_LINES // 2
    return [*lines[:half], f"[{len(lines) - 2 * half} lines are left out here]", *lines[-half:]]
