"""How things are with the coordinator at the moment of a scrape.

Collected in a thread of the metrics server: everything is copied before it is looked at, nothing waits for the event
loop or for the database.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from covey import __version__
from covey.coordinator.admin.operation import Operation
from covey.coordinator.admin.record_snapshot import RecordSnapshot
from covey.coordinator.nodes.members import Members
from covey.coordinator.nodes.sessions import Sessions
from covey.coordinator.runs.active_runs import ActiveRuns
from covey.coordinator.runs.facts import RunFacts
from covey.coordinator.store_thread import StoreThread
from covey.storage.files.artifacts import ArtifactFiles

Rows = Iterable[tuple[tuple[str, ...], float]]


def gauge(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    """A family of gauges: label values and a value each."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def single(name: str, text: str, value: float) -> Metric:
    """A gauge without labels."""
    return gauge(name, text, (), [((), value)])


@dataclass(frozen=True)
class GaugeSources:
    """What the gauges look at; `certificate_expires_at` is that of the coordinator's own, in Unix seconds."""

    operation: Operation
    store: StoreThread
    files: ArtifactFiles
    quota_bytes: int | None
    snapshot: RecordSnapshot
    sessions: Sessions
    members: Members
    runs: ActiveRuns
    certificate_expires_at: Callable[[], float]


class CoordinatorGauges(Collector):
    """Shows the state of a coordinator.

    Args:
        sources: Where it is looked up.
    """

    def __init__(self, sources: GaugeSources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """Everything, as it is now."""
        yield from self._daemon()
        yield from self._nodes()
        yield from self._runs()

    def _daemon(self) -> Iterator[Metric]:
        sources = self._sources
        states = {name: float(sources.operation.state == name) for name in ("running", "paused", "draining")}
        yield gauge("covey_build_info", "The version.", ("version",), [((__version__,), 1.0)])
        yield gauge("covey_coordinator_state", "1 for the present state.", ("state",), _by_name(states))
        yield single("covey_store_up", "Whether the database answered when it was last asked.", float(sources.store.up))
        yield single("covey_runs_queued", "Runs that wait for their turn.", sources.snapshot.queued)
        yield single(
            "covey_certificate_expiry_timestamp_seconds",
            "End of the coordinator's certificate, in Unix time.",
            sources.certificate_expires_at(),
        )
        yield single("covey_files_bytes", "Disk that model and update files take.", sources.files.bytes_used)
        if sources.quota_bytes is not None:
            yield single("covey_files_quota_bytes", "Disk that they may take.", sources.quota_bytes)

    def _nodes(self) -> Iterator[Metric]:
        sources = self._sources
        evicted, live = sources.members.evicted.copy(), sources.sessions.live()
        known = sources.snapshot.nodes | live.keys()
        active = known - evicted
        connected = {node: float(node in live) for node in sorted(active)}
        total = sum(connected.values())
        states = {"connected": total, "away": len(active) - total, "evicted": float(len(known & evicted))}
        ends = {
            node: identity.expires_at
            for node, identity in live.items()
            if node in active and math.isfinite(identity.expires_at)
        }
        drills = [((node, attack), 1.0) for node, attack in sources.members.drills.copy().items() if node in active]
        yield gauge("covey_nodes", "Enrolled nodes.", ("state",), _by_name(states))
        yield gauge("covey_node_connected", "Whether a node has a session.", ("node",), _by_name(connected))
        yield gauge(
            "covey_node_certificate_expiry_timestamp_seconds",
            "End of a connected node's certificate, in Unix time.",
            ("node",),
            _by_name(ends),
        )
        yield gauge("covey_node_drill", "1 for a node that is an adversary for a drill.", ("node", "attack"), drills)

    def _runs(self) -> Iterator[Metric]:
        active, ended = self._sources.runs.facts(), self._sources.runs.ended
        runs = list({run.run: run for run in (ended, *active) if run is not None}.values())
        labels = ("run", "name")
        facts = [((run.run, run.name, run.mode), 1.0) for run in runs]
        yield gauge("covey_run_info", "The active runs, and the last that ended.", (*labels, "mode"), facts)
        yield gauge(
            "covey_run_round", "The newest committed version.", labels, [(_key(r), float(r.committed)) for r in runs]
        )
        yield gauge(
            "covey_run_rounds", "Rounds asked for.", labels, [(_key(r), r.asked) for r in runs if r.counts == "rounds"]
        )
        updates = [run for run in runs if run.counts == "updates"]
        yield gauge(
            "covey_run_updates", "Decisions asked for (asynchronous).", labels, [(_key(r), r.asked) for r in updates]
        )
        yield gauge(
            "covey_run_updates_decided",
            "Decisions made (asynchronous).",
            labels,
            [(_key(r), r.decided) for r in updates],
        )
        yield gauge(
            "covey_run_waiting",
            "1 while the run waits for something.",
            labels,
            [(_key(run), float(run.waiting)) for run in active],
        )
        values = [((*_key(run), name), value) for run in runs for name, value in run.values.copy().items()]
        yield gauge("covey_run_metric", "The newest known value of a metric.", (*labels, "metric"), values)


def _by_name(values: dict[str, float]) -> Rows:
    return [((name,), value) for name, value in values.items()]


def _key(run: RunFacts) -> tuple[str, str]:
    return run.run, run.name
