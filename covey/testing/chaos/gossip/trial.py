"""A trial: gossip nodes are struck beside an undisturbed twin; then both go to their end, and are compared."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from covey.errors import CoveyError
from covey.testing.chaos.faults import FaultError
from covey.testing.chaos.gossip.arena import GossipArena, allow_paced
from covey.testing.chaos.gossip.learned import learned
from covey.testing.chaos.gossip.paced import PACED
from covey.testing.chaos.kinds import AMONG_PEERS
from covey.testing.chaos.logs import tracebacks_in
from covey.testing.chaos.schedule import EVERYBODY, Strike, strikes
from covey.testing.chaos.striker import Striker
from covey.testing.gossip import GossipNodes

POLL_S, LOOK_S, SAY_S = 0.05, 1.0, 60.0
BEGIN_S = 300.0
SERVICE_S = 5.0
"""So long after its end with an error a service starts a node again (`docker/systemd/covey-gossip@.service`)."""
PATIENCE_S = 300.0
"""So long no step of any node may be missing after the last strike."""
MODEL_BYTES = 20_000
NODES, MEAN_PAUSE_S, PACE_S = 6, 3.0, 1.0
STEPS_BEFORE = 20
"""So many more than fit into the minutes: some are done before all nodes have begun."""
DOWN = ("kill-node", "kill-everything", "terminate-twice", "suspend", "full-disk")
"""While these last, whom they strike can do no step."""
UNCORRECTED = 'rate_correction = "none"\ntopology = { name = "random", options = { peers = 1 } }'
PROTOCOLS = {
    "gossip": f'protocol = "agp"\n{UNCORRECTED}',
    "gossip-pairs": f'protocol = "ad-psgd"\n{UNCORRECTED}',
    "gossip-lock-step": 'protocol = "sgp"',
}
"""Work to [gossip]; but for lock step, nobody waits for anybody."""
SPEC = """
name = "chaos"
mode = "gossip"
seed = 7
[task]
name = "{path}"
options = {{ seconds = {pace_s} }}
[data]
partition = "shards"
[training]
local_steps = 5
learning_rate = 0.1
[gossip]
steps = {steps}
min_nodes = {nodes}
{protocol}
"""
LOSSES = "gossip-word:{0},gossip-batch:{0},gossip-answer:{0}"


@dataclass(frozen=True)
class GossipPlan:
    """What is to be done.

    Attributes:
        root: A folder for both federations.
        seed: Of the strikes.
        minutes: How long faults strike.
        nodes: How many there are in each federation.
        work: A key of `PROTOCOLS`.
        pace_s: How long each training takes at least, without using the processor.
        loss: The part of the messages of the disturbed nodes that is lost at their post.
        kinds: Names of `AMONG_PEERS`; empty: nobody is struck.
        mean_pause_s: Between two strikes.
        stretch: How many times longer than usual they last.
        fork: Whether daemons are copies of one process, where that is enabled.
    """

    root: Path
    seed: int
    minutes: float = 2.0
    nodes: int = NODES
    work: str = "gossip"
    pace_s: float = PACE_S
    loss: float = 0.0
    kinds: Sequence[str] = AMONG_PEERS
    mean_pause_s: float = MEAN_PAUSE_S
    stretch: float = 1.0
    fork: bool = True

    @property
    def steps(self) -> int:
        """As many as fit into the minutes where nothing but trainings takes time, and some more."""
        return math.ceil(60 * self.minutes / self.pace_s) + STEPS_BEFORE

    @property
    def spec_toml(self) -> str:
        """The run."""
        protocol = PROTOCOLS[self.work]
        return SPEC.format(path=PACED, pace_s=self.pace_s, steps=self.steps, nodes=self.nodes, protocol=protocol)


@dataclass
class GossipOutcome:
    """What came of it; steps are those that all nodes of a federation put on record while faults struck.

    Attributes:
        seconds: How long that was.
        struck: When, since its beginning, and what.
        steps: Of the nodes that were struck.
        undisturbed_steps: Of the twin, in the same time.
        down_s: The node seconds for which strikes that stop a node lasted, without what a restart takes.
        restarts: How often a node that had ended with an error was started again, as by its service.
        mass: `covey gossip audit --json` of the nodes that were struck, when all had ended.
        distance: Euclidean, from the consensus model of the twin.
        spreads: Largest distance of a node from the consensus model: struck, undisturbed.
        accuracies: Of the consensus models: struck, undisturbed.
        problems: What does not hold; empty: all does.
    """

    seconds: float = 0.0
    struck: list[tuple[float, Strike]] = field(default_factory=list)
    steps: int = 0
    undisturbed_steps: int = 0
    down_s: float = 0.0
    restarts: int = 0
    mass: dict[str, Any] = field(default_factory=dict)
    distance: float = math.nan
    spreads: tuple[float, float] = (math.nan, math.nan)
    accuracies: tuple[float, float] = (math.nan, math.nan)
    problems: list[str] = field(default_factory=list)

    @property
    def goodput(self) -> float:
        """Committed steps / those of the undisturbed twin in the same time, downtime included."""
        return self.steps / self.undisturbed_steps if self.undisturbed_steps else math.nan

    @property
    def times(self) -> Counter[str]:
        """How often each kind of fault happened."""
        return Counter(strike.kind for _, strike in self.struck)

    def a_node_and_hour(self, nodes: int) -> float:
        """Faults; what strikes everybody counts once for each node."""
        count = sum(nodes if strike.target == EVERYBODY else 1 for _, strike in self.struck)
        return count / nodes / (self.seconds / 3600) if self.seconds else math.nan


class Trial:
    """Does what a plan says.

    Args:
        plan: The plan.
        say: Gets a line for each thing that happens.
    """

    def __init__(self, plan: GossipPlan, say: Callable[[str], None]) -> None:
        self._plan, self._say = plan, say
        self.outcome = GossipOutcome()
        self._ended: dict[str, float] = {}

    def run(self) -> GossipOutcome:
        """All of it; what goes wrong is among the outcome's problems."""
        plan, outcome = self._plan, self.outcome
        struck = GossipNodes(plan.root / "struck", plan.spec_toml, plan.nodes, links=True, fork=plan.fork)
        twin = GossipNodes(plan.root / "undisturbed", plan.spec_toml, plan.nodes, links=True, fork=plan.fork)
        try:
            with struck, twin:
                self._try(struck, twin)
        except (CoveyError, FaultError, OSError) as error:
            outcome.problems.append(str(error))
        logs = [nodes.root / f"{name}.log" for nodes in (struck, twin) for name in nodes.names]
        outcome.problems += tracebacks_in(logs)
        return outcome

    def _try(self, struck: GossipNodes, twin: GossipNodes) -> None:
        plan = self._plan
        losses = {"COVEY_LOSSES": LOSSES.format(plan.loss)} if plan.loss else {}
        arena = GossipArena(struck, MODEL_BYTES, losses)
        allow_paced(twin)
        twin.start_all()
        for nodes in (struck, twin):
            for index in range(plan.nodes):
                nodes.until_step(index, 1, BEGIN_S)
        self._say(f"seed {plan.seed}: {plan.root}")
        planned = strikes(
            plan.seed, struck.names, plan.kinds or AMONG_PEERS, plan.mean_pause_s, plan.stretch, coordinator=False
        )
        striker = Striker(arena, planned)
        try:
            self._disturb(arena, striker, twin)
        finally:
            striker.undo_due(math.inf)
        self._wait(arena, striker, twin)
        self._compare(struck, twin)

    def _disturb(self, arena: GossipArena, striker: Striker, twin: GossipNodes) -> None:
        """Strike until the time is over, or somebody is through; count steps."""
        plan, outcome, struck = self._plan, self.outcome, arena.nodes
        before = _steps(struck), _steps(twin)
        began = look_at = said_at = time.monotonic()
        until = began + 60 * plan.minutes
        striker.begin(began)
        while (now := time.monotonic()) < until:
            striker.undo_due(now)
            strike = striker.strike(now) if plan.kinds else None
            if strike is not None:
                outcome.struck.append((now - began, strike))
                self._say(f"{now - began:7.1f} s  {strike}")
            self._serve(arena, striker, now)
            if now >= look_at:
                look_at = now + max(LOOK_S, 0.6 * plan.minutes)  # the longer the records, the longer it takes
                done = _steps(struck), _steps(twin)
                if max(*done[0], *done[1]) >= plan.steps:
                    break
                if now >= said_at:
                    self._say(f"{now - began:7.1f} s  steps {done[0]}, undisturbed {done[1]}")
                    said_at = now + SAY_S
            time.sleep(POLL_S)
        outcome.seconds = time.monotonic() - began
        outcome.steps = sum(_steps(struck)) - sum(before[0])
        outcome.undisturbed_steps = sum(_steps(twin)) - sum(before[1])
        self._say(f"{outcome.seconds:7.1f} s  goodput {outcome.goodput:.1%}; nobody is struck any more")
        outcome.down_s = sum(self._down_s(at, strike) for at, strike in outcome.struck)

    def _serve(self, arena: GossipArena, striker: Striker, now: float) -> None:
        """Start what ended with an error, as a service does: it had no room when it began."""
        failed = [name for name in arena.names if arena.daemon(name).exit_code and not striker.afflicts(name)]
        self._ended = {name: self._ended.get(name, now) for name in failed}
        due = [name for name, since in self._ended.items() if now - since >= SERVICE_S]
        for name in due:
            self._say(f"{name} ended, and is started again")
            arena.start(name)
        self.outcome.restarts += len(due)

    def _down_s(self, at: float, strike: Strike) -> float:
        """Node seconds for which a strike stopped somebody."""
        if strike.kind not in DOWN:
            return 0.0
        lasted = min(strike.lasts_s, self.outcome.seconds - at)
        return lasted * (self._plan.nodes if strike.target == EVERYBODY else 1)

    def _wait(self, arena: GossipArena, striker: Striker, twin: GossipNodes) -> None:
        """Until all have ended by themselves, as long as steps are made."""
        moved_at, seen = time.monotonic(), (_steps(arena.nodes), _steps(twin))
        while waited_for := [
            nodes.daemon(index)
            for nodes in (arena.nodes, twin)
            for index in range(self._plan.nodes)
            if nodes.daemon(index).exit_code != 0
        ]:
            time.sleep(LOOK_S)
            now = time.monotonic()
            self._serve(arena, striker, now)
            if (done := (_steps(arena.nodes), _steps(twin))) != seen:
                moved_at, seen = now, done
            if now - moved_at > PATIENCE_S:
                logs = "\n".join(f"{daemon.log}:\n{daemon.tail()}" for daemon in waited_for)
                raise FaultError(f"nothing moved for {PATIENCE_S:g} s; steps {done[0]}, undisturbed {done[1]}\n{logs}")

    def _compare(self, struck: GossipNodes, twin: GossipNodes) -> None:
        outcome = self.outcome
        outcome.mass = struck.audit()
        outcome.problems += problems_of(outcome.mass, self._plan.nodes)
        mine, other = (learned([nodes.folder(i) for i in range(self._plan.nodes)]) for nodes in (struck, twin))
        outcome.distance = mine.distance(other)
        outcome.spreads, outcome.accuracies = (mine.spread, other.spread), (mine.accuracy, other.accuracy)


def _steps(nodes: GossipNodes) -> list[int]:
    return [nodes.steps(index) for index in range(len(nodes.names))]


def problems_of(mass: dict[str, Any], nodes: int) -> Iterator[str]:
    """What an audit of nodes that have all ended must not say."""
    if not mass["exact"] or mass["findings"] or mass["named"]:
        yield f"the audit: {mass}"
    if not mass["live"] == mass["minted"] == nodes << 52 or mass["lost"] or mass["in_flight"]:
        yield f"mass was made or lost, or did not arrive: {mass}"
