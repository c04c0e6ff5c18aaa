"""What the coordinator counts for Prometheus while it works; `gauges` shows how things are at a scrape.

Every hook is one cheap call on the event loop or in the store's thread. Names and meanings: docs/metrics.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, Summary
from prometheus_client.registry import Collector

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
NODE_PHASES = ("invited", "queued", "downloading", "training", "uploading")
VERDICTS = ("accepted", "rejected", "declined", "lost", "late")


class CoordinatorMetrics(Collector):
    """The counters of one coordinator, from its start on, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.evicted: set[str] = set()
        """Nodes that are shown no more: the members' own set."""
        registry.register(self)  # before all others, see `collect`
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
        self.resent = Counter(
            "covey_node_resent_bytes",
            "Bytes of updates and models that went twice, because a transfer broke.",
            ["node"],
            registry=registry,
        )
        self.worker_restarts = Counter(
            "covey_worker_restarts", "Workers that took the place of one that died.", registry=registry
        )
        self._phases: dict[tuple[str, str], tuple[str, float]] = {}
        """Run and node to the phase that the node is in, and since when (monotonic seconds)."""
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
        self.resent.labels(node)
        for phase in NODE_PHASES:
            self.node_phases.labels(node, phase)
        for verdict in VERDICTS:
            self.updates.labels(node, verdict)

    def entered(self, run: str, node: str, phase: str) -> None:
        """A node's part in a run's round is in this phase from now on; one not of `NODE_PHASES` ends its part."""
        before = self._phases.get((run, node))
        if before is not None and before[0] == phase:
            return
        now = time.monotonic()
        if before is not None:
            self.node_phases.labels(node, before[0]).observe(now - before[1])
            del self._phases[run, node]
        # A late word of progress does not begin anything: a part in a round begins with its invitation.
        if phase == "invited" or (before is not None and phase in NODE_PHASES):
            self._phases[run, node] = phase, now

    def count_received(self, node: str, count: int) -> None:
        """So many bytes of an update came from a node."""
        self.received.labels(node).inc(count)

    def count_sent(self, node: str, count: int) -> None:
        """So many bytes of a model went to a node."""
        self.sent.labels(node).inc(count)

    def count_resent(self, node: str, count: int) -> None:
        """So many bytes passed between a node and the coordinator that had passed before."""
        self.resent.labels(node).inc(count)

    def round_ended(self, outcome: str, seconds: float | None = None) -> None:
        """A round was `committed`, `retried` or `failed`; how long it took, where that is known."""
        self.rounds.labels(outcome).inc()
        if seconds is not None:
            self.round_seconds.observe(seconds)

    def phase(self, phase: str) -> AbstractContextManager[object]:
        """Times a phase of a round."""
        return self.round_phases.labels(phase).time()

    def phase_took(self, phase: str, seconds: float) -> None:
        """A phase of a round took so long."""
        self.round_phases.labels(phase).observe(seconds)

    def run_ended(self, state: str) -> None:
        """A run ended."""
        self.runs.labels(state).inc()

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
            for single in (self.sessions, self.received, self.sent, self.resent):
                single.remove(node)
            for phase in NODE_PHASES:
                self.node_phases.remove(node, phase)
            for verdict in VERDICTS:
                self.updates.remove(node, verdict)
