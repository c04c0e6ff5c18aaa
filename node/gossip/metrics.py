"""What a gossip node shows to Prometheus. Names and meanings: docs/metrics.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from covey import __version__
from covey.artifact import Artifact
from covey.gossip.mass import weight
from covey.gossip.topologies.contract import LinkQuality
from covey.node.gossip.executor import Executor
from covey.node.gossip.record.rows import peer_rows
from covey.worker.jobs.training import TrainResult

STATES = ("there", "away", "finished", "left", "evicted")


@dataclass(frozen=True)
class Figures:
    """A node at one moment. Seconds are of this process, batches of the whole run, restarts included."""

    step: int
    mass: float
    in_flight: int
    given: int
    had: int
    is_waiting: bool
    peers: Mapping[str, int]
    trained_s: float
    blocked_s: float
    body_bytes: int
    connections: int = 0
    links: Mapping[str, LinkQuality] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)


def figures_of(
    executor: Executor[Artifact, TrainResult],
    connections: int = 0,
    links: Mapping[str, LinkQuality] | None = None,
    measured: Mapping[str, float] | None = None,
    obstacle: str = "",
) -> Figures:
    """What there is to show of a node. To be called where the executor works.

    Args:
        executor: The node's.
        connections: How many peers there is a link to.
        links: What is measured of the way to peers, by name.
        measured: What the newest training measured.
        obstacle: What is in this machine's way; empty: nothing.
    """
    machine, ledger, hours = executor.machine, executor.ledger, executor.hours
    return Figures(
        machine.step,
        weight(ledger.live),
        sum(1 for edge in ledger.out.values() if edge.waiting),
        sum(edge.sequence for edge in ledger.out.values()),
        sum(edge.sequence for edge in ledger.into.values()),
        bool(executor.waits_for or obstacle),
        Counter(str(row["state"]) for row in peer_rows(machine.exchange)),
        hours.trained_s,
        hours.blocked_s,
        executor.model.size_bytes,
        connections,
        links or {},
        measured or {},
    )


class GossipMetrics(Collector):
    """The figures of one node, in a registry of their own. A scrape, in another thread, reads what was shown last."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._figures: Figures | None = None
        build = Gauge("covey_build_info", "The version.", ["version"], registry=registry)
        build.labels(__version__).set(1)
        self.certificate_expiry = Gauge(
            "covey_certificate_expiry_timestamp_seconds",
            "End of the node's certificate, in Unix time.",
            registry=registry,
        )
        self.worker_restarts = CounterMetric(
            "covey_worker_restarts", "Workers that took the place of one that died.", registry=registry
        )
        registry.register(self)

    def show(self, figures: Figures) -> None:
        """These are the figures from now on."""
        self._figures = figures

    @override
    def collect(self) -> Iterator[Metric]:
        figures = self._figures
        if figures is None:
            return
        for name, text, value in (
            ("step", "Steps that were made.", figures.step),
            ("mass", "The node's mass; 1 is what it began with.", figures.mass),
            ("batches_in_flight", "Batches that are not acknowledged.", figures.in_flight),
            ("connections", "Peers that there is a link to.", figures.connections),
            ("waiting", "1 while the node waits for something.", float(figures.is_waiting)),
        ):
            yield GaugeMetricFamily(f"covey_gossip_{name}", text, value)
        for name, text, value in (
            ("training_seconds", "Time of trainings.", figures.trained_s),
            ("blocked_seconds", "Time between trainings.", figures.blocked_s),
            ("sent_batches", "Batches that were given.", figures.given),
            ("received_batches", "Batches that came.", figures.had),
            ("sent_bytes", "Their bytes, as often as each was given.", figures.given * figures.body_bytes),
            ("received_bytes", "Their bytes.", figures.had * figures.body_bytes),
        ):
            yield CounterMetricFamily(f"covey_gossip_{name}", text, value)
        yield _family("peers", "Peers by what is known of them.", "state", {s: figures.peers.get(s, 0) for s in STATES})
        trips = {name: link.round_trip_s for name, link in figures.links.items()}
        rates = {name: link.bytes_per_s for name, link in figures.links.items()}
        yield _family("peer_round_trip_seconds", "Of small messages to a peer and back, on average.", "peer", trips)
        yield _family("peer_bytes_per_second", "At which batches go to a peer, on average.", "peer", rates)
        yield _family("metric", "What the newest training measured.", "metric", figures.measured)


def _family(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"covey_gossip_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
