"""What the coordinator counts for Prometheus while it works; `gauges` shows how things are at a scrape.

Every hook is one cheap call on the event loop or in the store's thread. Names and meanings: docs/metrics.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, Summary
from prometheus_client.registry import Collector

from covey.coordinator.admin.views import NODE_PREFIX

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
NODE_PHASES = ("invited", "downloading", "training", "uploading")
VERDICTS = ("accepted", "rejected", "declined", "lost")
MAX_METRICS, MAX_METRIC_NAME = 100, 100
"""Of one run's metrics whose names the nodes choose; names of all."""


@dataclass
class RunFacts:
    """What is shown of a run: the present one, and the last one that ended."""

    run: str
    name: str
    mode: str
    asked: int = 0
    """Rounds, or updates of an asynchronous run, that the specification asks for."""
    committed: int = 0
    """The newest committed version."""
    decided: int = 0
    """Updates of an asynchronous run that were decided on."""
    waiting: bool = False
    values: dict[str, float] = field(default_factory=dict)
    """The newest known value of every metric."""

    def note(self, metrics: Mapping[str, object]) -> None:
        """Values of a version became known."""
        for name, value in metrics.items():
            short = name[:MAX_METRIC_NAME]
            # What cannot be printed cannot be shown, and would cost the whole scrape.
            if isinstance(value, int | float) and short.isprintable() and self._has_room(short):
                self.values[short] = float(value)

    def _has_room(self, name: str) -> bool:
        """Whether a metric of this name may be shown: those that nodes name take no place from others."""
        if name in self.values or not name.startswith(NODE_PREFIX):
            return True
        return sum(known.startswith(NODE_PREFIX) for known in self.values) < MAX_METRICS


class CoordinatorMetrics(Collector):
    """The counters of one coordinator, from its start on, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.evicted: set[str] = set()
        """Nodes that are shown no more: the environment's own set."""
        registry.register(self)  # before all others, see `collect`
        self.ended: RunFacts | None = None
        """The last run that ended."""
        self.store_calls = Histogram(
            "covey_store_call_seconds", "Time of a call of the record's database.", buckets=BUCKETS_S, registry=registry
        )
        self.sessions = Counter("covey_node_sessions", "Sessions that a node opened.", ["node"], registry=registry)
        self.runs = Counter("covey_runs", "Runs that ended.", ["state"], registry=registry)
        self.rounds = Counter(
            "covey_rounds",
            "Rounds committed, tried again, failed; decisions of asynchronous runs count as committed.",
            ["outcome"],
            registry=registry,
        )
        self.round_seconds = Histogram(
            "covey_round_seconds", "From a round's opening to its commit.", buckets=BUCKETS_S, registry=registry
        )
        self.round_phases = Histogram(
            "covey_round_phase_seconds",
            "What a round's time goes into.",
            ["phase"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.node_phases = Summary(
            "covey_node_phase_seconds", "What a node's time in a round goes into.", ["node", "phase"], registry=registry
        )
        self.updates = Counter("covey_updates", "Answers of nodes.", ["node", "verdict"], registry=registry)
        self.received = Counter(
            "covey_node_received_bytes", "Bytes of updates received from a node.", ["node"], registry=registry
        )
        self.sent = Counter("covey_node_sent_bytes", "Bytes of models sent to a node.", ["node"], registry=registry)
        self.worker_restarts = Counter(
            "covey_worker_restarts", "Workers that took the place of one that died.", registry=registry
        )
        self._phases: dict[str, tuple[str, float]] = {}
        """Node to the phase that it is in, and since when (monotonic seconds)."""
        self._show_zeros()

    def _show_zeros(self) -> None:
        """A rate needs a first value: what is known beforehand is there from the start."""
        for state in ("completed", "failed", "stopped"):
            self.runs.labels(state)
        for outcome in ("committed", "retried", "failed"):
            self.rounds.labels(outcome)
        for phase in ("collecting", "aggregating", "committing", "evaluating"):
            self.round_phases.labels(phase)

    def connected(self, node: str) -> None:
        """A node opened a session; from now on its counters are shown, at zero where nothing happened yet."""
        self.sessions.labels(node).inc()
        self.received.labels(node)
        self.sent.labels(node)
        for phase in NODE_PHASES:
            self.node_phases.labels(node, phase)
        for verdict in VERDICTS:
            self.updates.labels(node, verdict)

    def entered(self, node: str, phase: str) -> None:
        """A node's part in the round is in this phase from now on; one that is not of `NODE_PHASES` ends its part."""
        before = self._phases.get(node)
        if before is not None and before[0] == phase:
            return
        now = time.monotonic()
        if before is not None:
            self.node_phases.labels(node, before[0]).observe(now - before[1])
            del self._phases[node]
        # A late word of progress does not begin anything: a part in a round begins with its invitation.
        if phase == "invited" or (before is not None and phase in NODE_PHASES):
            self._phases[node] = phase, now

    def judged(self, verdicts: Iterable[tuple[str, str]]) -> None:
        """Nodes' updates got their verdicts; those of other kinds (held) are still to come."""
        for node, verdict in verdicts:
            if verdict in VERDICTS:
                self.updates.labels(node, verdict).inc()

    def collect(self) -> Iterable[Metric]:
        """Nothing; but at the beginning of a scrape what is known of evicted nodes is dropped (again)."""
        self.forget(self.evicted.copy())
        return ()

    def forget(self, nodes: Iterable[str]) -> None:
        """Drop everything that is known of nodes that were evicted."""
        for node in nodes:
            for single in (self.sessions, self.received, self.sent):
                single.remove(node)
            for phase in NODE_PHASES:
                self.node_phases.remove(node, phase)
            for verdict in VERDICTS:
                self.updates.remove(node, verdict)
