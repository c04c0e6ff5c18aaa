"""Chaos itself: runs are made undisturbed once, then again and again while faults strike; what they owe is compared."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from covey.errors import CoveyError
from covey.testing.chaos import checks, figures
from covey.testing.chaos.arena import Arena
from covey.testing.chaos.faults import FaultError
from covey.testing.chaos.figures import Figures
from covey.testing.chaos.kinds import FEDERATED, KINDS
from covey.testing.chaos.schedule import COORDINATOR, MEAN_PAUSE_S, Strike, strikes
from covey.testing.chaos.striker import Striker
from covey.testing.chaos.works import ALLOWED, PARAMETERS, WORKS, Work
from covey.testing.federation import TERMINAL

POLL_S = 0.05
ASK_S = 0.5
FIGURES_S = 10.0
PATIENCE_S = 300.0
"""So long no run may stand still."""
SETTLE_S = 60.0
LEAST_S = 5.0
"""Of what is left of the minutes: for less, no lap is begun."""


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        root: A folder for the federation.
        seed: Of the strikes.
        minutes: How long faults strike.
        laps: At most so many times all runs; None: as many as there is time for.
        nodes: How many.
        rounds: Of each run.
        parameters: Of the models of `synthetic`.
        works: Names of `WORKS`.
        kinds: Names of `KINDS`.
        mean_pause_s: Between two strikes.
        stretch: How many times longer than usual they last.
        keep_all: Whether runs keep all updates, and are replayed.
        fork: Whether daemons are copies of one process, where that is enabled.
    """

    root: Path
    seed: int
    minutes: float = 2.0
    laps: int | None = None
    nodes: int = 3
    rounds: int = 40
    parameters: int = PARAMETERS
    works: Sequence[str] = tuple(WORKS)
    kinds: Sequence[str] = FEDERATED
    mean_pause_s: float = MEAN_PAUSE_S
    stretch: float = 1.0
    keep_all: bool = True
    fork: bool = True


@dataclass
class Lap:
    """One time all runs: their ends by the work's name, and the strikes meanwhile."""

    number: int
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    struck: list[tuple[float, Strike]] = field(default_factory=list)

    @property
    def forgot(self) -> bool:
        """Whether a node lost what a method keeps on it."""
        return any(KINDS[strike.kind].loses_state for _, strike in self.struck)

    @property
    def done(self) -> int:
        """Rounds and asynchronous updates."""
        return sum(int(run["updates_decided"] or run["rounds_committed"]) for run in self.runs.values())


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        laps: The first one is undisturbed, and has only the runs whose models are compared.
        figures: In the order of time.
        problems: What does not hold; empty: all does.
        notes: What was not compared, and why.
    """

    laps: list[Lap] = field(default_factory=list)
    figures: list[Figures] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def struck(self) -> Counter[str]:
        """How often each kind of fault happened."""
        return Counter(strike.kind for lap in self.laps for _, strike in lap.struck)

    @property
    def done(self) -> int:
        """Rounds and asynchronous updates under faults."""
        return sum(lap.done for lap in self.laps[1:])


class Chase:
    """Does what a plan says.

    Args:
        plan: The plan.
        say: Gets a line for each thing that happens.
    """

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan, self._say = plan, say
        self._began = time.monotonic()
        planned = strikes(plan.seed, names_of(plan.nodes), plan.kinds, plan.mean_pause_s, plan.stretch)
        self._arena = Arena(plan.root, plan.nodes, parameters=plan.parameters, allowed=ALLOWED, fork=plan.fork)
        self._striker = Striker(self._arena, planned)
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """All of it; what goes wrong is among the outcome's problems."""
        arena = self._arena
        try:
            with arena:
                self._say(f"seed {self.plan.seed}: {arena.federation.root}")
                self._laps(arena)
        except (CoveyError, FaultError, OSError) as error:
            self.outcome.problems.append(str(error))
        self.outcome.problems += checks.tracebacks(arena)
        return self.outcome

    def _laps(self, arena: Arena) -> None:
        self._lap(arena, strike_s=0.0)
        left_s, most = 60.0 * self.plan.minutes, math.inf if self.plan.laps is None else self.plan.laps
        while left_s > LEAST_S and not self.outcome.problems and len(self.outcome.laps) <= most:
            left_s -= self._lap(arena, left_s)

    def _lap(self, arena: Arena, strike_s: float) -> float:
        """All runs once, with strikes for so long at most; the seconds that the runs took, without checks."""
        lap = Lap(len(self.outcome.laps))
        self.outcome.laps.append(lap)
        for work in self._works_of(lap):
            lap.runs[work.name] = arena.federation.show(arena.federation.submit(self._text(work, lap)))
        began = time.monotonic()
        self._striker.begin(began)
        try:
            self._follow(arena, lap, began + strike_s)
        finally:
            self._striker.undo_due(float("inf"))
        took_s = time.monotonic() - began
        self._settle(arena, lap)
        self._check(arena, lap)
        return took_s

    def _text(self, work: Work, lap: Lap) -> str:
        plan, name = self.plan, f"{work.name}-{lap.number}"
        return work.spec_toml(
            name, rounds=plan.rounds, nodes=plan.nodes, parameters=plan.parameters, keep_all=plan.keep_all
        )

    def _works_of(self, lap: Lap) -> list[Work]:
        """All of them; undisturbed, only those whose models are compared."""
        works = [WORKS[name] for name in self.plan.works]
        return works if lap.number else [work for work in works if work.exact]

    # -- while runs go on

    def _follow(self, arena: Arena, lap: Lap, until: float) -> None:
        ask_at = figures_at = 0.0
        moved_at, seen = time.monotonic(), -1
        while any(run["state"] not in TERMINAL for run in lap.runs.values()):
            now = time.monotonic()
            self._striker.undo_due(now)
            if now < until and (strike := self._striker.strike(now)) is not None:
                self._note(lap, strike)
            if now >= ask_at and not self._striker.afflicts(COORDINATOR):
                self._ask(arena, lap)
                ask_at = now + ASK_S
            if now >= figures_at:
                self._figures(arena, lap, settled=False)
                figures_at = now + FIGURES_S
            if lap.done != seen:
                moved_at, seen = now, lap.done
            if now - moved_at > PATIENCE_S:
                waits = "; ".join(f"{run['name']}: {run['state']}, {run['reason']}" for run in lap.runs.values())
                raise FaultError(f"nothing moved for {PATIENCE_S:g} s: {waits}\n{arena.federation.log_tails()}")
            time.sleep(POLL_S)

    def _ask(self, arena: Arena, lap: Lap) -> None:
        with contextlib.suppress(ConnectionError):
            for name, run in lap.runs.items():
                if run["state"] not in TERMINAL:
                    lap.runs[name] = arena.federation.admin.run(run["run"])

    def _note(self, lap: Lap, strike: Strike) -> None:
        lap.struck.append((time.monotonic() - self._began, strike))
        progress = ", ".join(f"{name} {_progress(run)}" for name, run in lap.runs.items())
        self._say(f"{time.monotonic() - self._began:7.1f} s  {strike}  ({progress})")

    # -- when they have ended

    def _settle(self, arena: Arena, lap: Lap) -> None:
        """Wait until everybody is connected and files are tidied; what stays is a problem."""
        arena.federation.wait_connected(self.plan.nodes, SETTLE_S)
        give_up_at, left = time.monotonic() + SETTLE_S, ["?"]
        while left and time.monotonic() < give_up_at:
            time.sleep(ASK_S)
            left = [*checks.orphans(arena), *self._grown(self._figures(arena, lap, settled=True))]
            if left:
                self.outcome.figures.pop()
        self.outcome.problems += left
        if left:
            self._figures(arena, lap, settled=True)

    def _grown(self, now: Figures) -> list[str]:
        first = next((sample for sample in self.outcome.figures if sample.settled), now)
        return list(figures.growth(first, now))

    def _figures(self, arena: Arena, lap: Lap, *, settled: bool) -> Figures:
        done = sum(past.done for past in self.outcome.laps)
        taken = figures.take(arena, self._began, lap=lap.number, rounds=done, settled=settled)
        self.outcome.figures.append(taken)
        return taken

    def _check(self, arena: Arena, lap: Lap) -> None:
        first = self.outcome.laps[0]
        for work in self._works_of(lap):
            run = lap.runs[work.name] = arena.federation.show(lap.runs[work.name]["run"])
            owes = work.exact and lap is not first and not (work.keeps_state and lap.forgot)
            if work.exact and lap is not first and not owes:
                self.outcome.notes.append(f"{run['name']}: not compared, a node lost its data")
            undisturbed = first.runs[work.name]["model_sha256"] if owes else ""
            problems = checks.problems_of(arena, work, run, undisturbed=undisturbed, replay=self.plan.keep_all)
            self.outcome.problems += problems
        told = "; ".join(f"{name} {_progress(run)} {run['model_sha256'][:12]}" for name, run in lap.runs.items())
        self._say(f"{time.monotonic() - self._began:7.1f} s  lap {lap.number}, {len(lap.struck)} faults: {told}")


def _progress(run: dict[str, Any]) -> str:
    return str(run["updates_decided"] or run["rounds_committed"])


def names_of(nodes: int) -> list[str]:
    """The nodes' names in a federation of so many."""
    width = len(str(max(nodes - 1, 0)))
    return [f"n{index:0{width}}" for index in range(nodes)]
