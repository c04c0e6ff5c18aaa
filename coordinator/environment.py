"""The daemon's assembly: makes every room's services from what they share. Only who starts a coordinator imports it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from covey.coordinator.admin.gauges import GaugeSources
from covey.coordinator.admin.metrics import CoordinatorMetrics
from covey.coordinator.admin.operation import Operation
from covey.coordinator.admin.record_snapshot import RecordSnapshot
from covey.coordinator.admin.service import AdminServices
from covey.coordinator.admin.site_log import site_log_page
from covey.coordinator.backup.backup import BackupServices
from covey.coordinator.config import CoordinatorConfig
from covey.coordinator.keys.renewal import OwnCertificate
from covey.coordinator.keys.sealer import RecordSealer
from covey.coordinator.modes.registry import event_log, take_up
from covey.coordinator.nodes.enrolment import Addresses, EnrolmentServices
from covey.coordinator.nodes.gossip import AuthorityNotary
from covey.coordinator.nodes.members import Members
from covey.coordinator.nodes.service import NodeServiceInputs
from covey.coordinator.nodes.sessions import Sessions
from covey.coordinator.nodes.site_logs import FOLDER, SiteLogs
from covey.coordinator.runs.active_runs import ActiveRuns
from covey.coordinator.runs.deletion import DeletionServices
from covey.coordinator.runs.offers import Offers
from covey.coordinator.runs.ports import RunServices
from covey.coordinator.runs.retention import Retention
from covey.coordinator.runs.schedule.scheduler import Scheduler
from covey.coordinator.store_thread import StoreThread
from covey.coordinator.studies import Studies
from covey.driver.background import Background
from covey.driver.changes import Changes
from covey.driver.steady_clock import steady_clock
from covey.storage.files.artifacts import ArtifactFiles
from covey.wire.identities.authority import Authority
from covey.wire.identities.signing import SigningKey
from covey.wire.listeners.connections import Connections
from covey.wire.transfers.streams import receive
from covey.worker.client.supervisor import WorkerSupervisor


@dataclass
class Environment:
    """What one coordinator is made of."""

    config: CoordinatorConfig
    store: StoreThread
    files: ArtifactFiles
    worker: WorkerSupervisor
    authority: Authority
    signing_key: SigningKey
    sessions: Sessions
    members: Members
    operation: Operation
    metrics: CoordinatorMetrics = field(default_factory=CoordinatorMetrics)
    studies: Studies = field(default_factory=Studies)
    snapshot: RecordSnapshot = field(default_factory=RecordSnapshot)
    runs: ActiveRuns = field(default_factory=ActiveRuns)
    changes: Changes = field(default_factory=Changes)
    background: Background = field(default_factory=Background)
    connections: Connections = field(default_factory=Connections)
    addresses: Addresses = field(default_factory=Addresses)
    keeps_deadlines: bool = True
    clock: Callable[[], float] = field(default_factory=steady_clock)
    """What machines go by: it never jumps."""
    events: Path | None = None
    """The folder of the runs' event logs; None: there are none."""

    def __post_init__(self) -> None:
        # Here, where runs get their signer: their commits say that the record is sealed.
        self.store.store.seal_with(RecordSealer(self.federation, self.signing_key))
        self.store.on_call = self.metrics.store_calls.observe
        self.metrics.evicted = self.members.evicted
        self.addresses.advertise = self.config.advertise
        self.addresses.advertise_enrol = self.config.advertise_enrol
        self.retention = Retention(self.files)
        self.run_services = self._run_services()
        self.scheduler = Scheduler(self.run_services, self.runs, take_up, self.config.max_runs, self.studies)
        self.site_logs = SiteLogs(self.config.data_dir / FOLDER)
        self.offers = Offers(self.run_services, self.runs, self.background, receive)
        self.retention.in_use = self.offers.digests

    @property
    def federation(self) -> str:
        """Its name."""
        return self.authority.federation

    @staticmethod
    def now() -> float:
        """Unix time in seconds."""
        return time.time()

    def _run_services(self) -> RunServices:
        return RunServices(
            federation=self.federation,
            nodes=self.sessions,
            members=self.members,
            store=self.store,
            files=self.files,
            retention=self.retention,
            worker=self.worker,
            signer=self.signing_key,
            notary=AuthorityNotary(self.authority, self.now),
            metrics=self.metrics,
            changes=self.changes,
            operator=self.operation,
            clock=self.clock,
            now=self.now,
            started_at=self.clock(),
            allow_paths=self.config.allow_paths,
            data_paths=self.config.data_paths,
            keeps_deadlines=self.keeps_deadlines,
            record_events=partial(event_log, self.events, self.now) if self.events is not None else None,
        )

    def enrolment_services(self) -> EnrolmentServices:
        """For the enrolment listener, and for tokens."""
        return EnrolmentServices(
            self.federation, self.store, self.authority, self.signing_key, self.members, self.addresses, self.now
        )

    def node_services(self) -> NodeServiceInputs:
        """For the service towards nodes."""
        return NodeServiceInputs(
            federation=self.federation,
            store=self.store,
            files=self.files,
            sessions=self.sessions,
            members=self.members,
            runs=self.runs,
            offers=self.offers,
            enrolment=self.enrolment_services(),
            site_logs=self.site_logs,
            metrics=self.metrics,
            changes=self.changes,
            background=self.background,
            clock=self.clock,
            now=self.now,
        )

    def admin_services(self) -> AdminServices:
        """For the service towards admins."""
        return AdminServices(
            federation=self.federation,
            store=self.store,
            files=self.files,
            worker=self.worker,
            signing_key=self.signing_key,
            sessions=self.sessions,
            members=self.members,
            runs=self.runs,
            scheduler=self.scheduler,
            studies=self.studies,
            enrolment=self.enrolment_services(),
            backup=BackupServices(self.config.data_dir, self.store, self.files, self.retention, self.background),
            operation=self.operation,
            site_log=partial(site_log_page, self.site_logs),
            deletion=DeletionServices(self.store.store, self.files, self.retention, self.events, self.site_logs.drop),
            changes=self.changes,
            clock=self.clock,
            now=self.now,
            store_name="PostgreSQL" if (self.config.store_url or "").startswith("postgres") else "SQLite",
            allow_paths=self.config.allow_paths,
            data_paths=self.config.data_paths,
        )

    def gauge_sources(self, own: OwnCertificate) -> GaugeSources:
        """For what is shown at a scrape."""
        return GaugeSources(
            operation=self.operation,
            store=self.store,
            files=self.files,
            quota_bytes=self.config.quota_bytes,
            snapshot=self.snapshot,
            sessions=self.sessions,
            members=self.members,
            runs=self.runs,
            certificate_expires_at=lambda: own.identity.expires_at,
        )
