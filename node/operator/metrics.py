"""What a node counts for Prometheus while it works. Names and meanings: docs/metrics.md."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Summary

from covey import __version__
from covey.errors import CoveyError, StoreError, TransferError, WorkerError
from covey.metrics import counted
from covey.worker.jobs.training import TrainResult

OUTCOMES = ("received", "declined", "refused", "failed", "cancelled")
PHASES = ("downloading", "training", "uploading")


class NodeMetrics:
    """The counters of one node, from its start on, in a registry of their own; renewals of its certificate included."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        build = Gauge("covey_build_info", "The version.", ["version"], registry=registry)
        self.connected = Gauge("covey_work_connected", "Whether there is a session.", registry=registry)
        self.sessions = Counter("covey_work_sessions", "Sessions that were opened.", registry=registry)
        self.updates = Counter("covey_work_updates", "How training assignments ended.", ["outcome"], registry=registry)
        self.phases = Summary(
            "covey_work_phase_seconds", "What the time of assignments goes into.", ["phase"], registry=registry
        )
        self.received = Counter("covey_work_received_bytes", "Bytes of models received.", registry=registry)
        self.sent = Counter("covey_work_sent_bytes", "Bytes of updates sent.", registry=registry)
        self.loss = Gauge("covey_work_training_loss", "The loss of the newest training.", registry=registry)
        self.steps = Counter("covey_work_steps", "Optimizer steps of finished trainings.", registry=registry)
        self.worker_restarts = Counter(
            "covey_worker_restarts", "Workers that took the place of one that died.", registry=registry
        )
        self.certificate_expiry = Gauge(
            "covey_certificate_expiry_timestamp_seconds",
            "End of the node's certificate, in Unix time.",
            registry=registry,
        )
        self.drill = Gauge("covey_work_drill", "1: an adversary for a drill.", ["attack"], registry=registry)
        build.labels(__version__).set(1)
        for outcome in OUTCOMES:
            self.updates.labels(outcome)
        for phase in PHASES:
            self.phases.labels(phase)

    def trained(self, result: TrainResult) -> None:
        """A training is finished."""
        self.steps.inc(result.steps)
        total, count = counted(result.metrics).get("loss", (0.0, 0.0))
        if count:
            self.loss.set(total / count)


def outcome_of(error: CoveyError) -> str:
    """How a training ended that is answered with a refusal: of the policy, or because something went wrong."""
    return "failed" if isinstance(error, WorkerError | TransferError | StoreError) else "declined"
