"""What an operator decides about a coordinator when starting it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from covey.telemetry import LogFormat
from covey.worker.client.confinement import Confinement

DEFAULT_LISTEN = "127.0.0.1:7400"
DEFAULT_ENROL_LISTEN = "127.0.0.1:7401"
DATABASE = "covey.db"


@dataclass(frozen=True)
class CoordinatorConfig:
    """The options of `covey coordinator start`. Addresses are `host:port`; port 0 takes any free one."""

    data_dir: Path
    listen: str = DEFAULT_LISTEN
    """Where nodes and admins connect, with their certificates."""
    enrol_listen: str = DEFAULT_ENROL_LISTEN
    """Where join tokens are redeemed. The same as `listen`: there, behind its handshake, by what the tokens carry."""
    store_url: str | None = None
    """The record's database; None: SQLite in the data directory."""
    artifacts: str | None = None
    """Where models last, as fsspec names it (`s3://BUCKET/PREFIX`); None: in the data directory."""
    advertise: str | None = None
    """How others reach `listen`, where that differs from it; written into join tokens."""
    advertise_enrol: str | None = None
    """How others reach `enrol_listen`."""
    log_format: LogFormat = "console"
    log_level: str = "info"
    quota_bytes: int | None = None
    """How much disk the model and update files may take; None: no bound."""
    device: str = "cpu"
    """What the worker aggregates and evaluates on."""
    metrics: str | None = None
    """Where Prometheus may scrape; None: nowhere. On loopback without TLS, else for admins' certificates only."""
    allow_paths: bool = False
    """Whether a run may name a task that is installed here by its import path, `package.module:Class`."""
    stall_s: float = 900.0
    """How long a job of the worker (an aggregation, an evaluation) may go without a step; then its worker is ended."""
    worker_memory_bytes: int | None = None
    """Most memory of the worker's own; None: as much as there is."""
    worker_env: tuple[str, ...] = ()
    """Variables of the daemon's environment that the worker sees beside the usual ones."""
    data_paths: Mapping[str, str] = field(default_factory=dict)
    """Where a task finds the coordinator's own data (`Task.central_data`), by name."""
    max_runs: int = 4
    """How many runs are taken care of at once."""

    @property
    def has_one_port(self) -> bool:
        """Whether join tokens are redeemed at the main port."""
        return self.listen == self.enrol_listen and not self.listen.endswith(":0")

    @property
    def confinement(self) -> Confinement:
        """What the worker cannot read, and what it is given."""
        hidden = (self.data_dir / "keys", self.data_dir / "admin")
        return Confinement(hidden, self.worker_memory_bytes, self.worker_env)

    @property
    def database_url(self) -> str:
        """Where the record is, also where none was named."""
        return self.store_url or sqlite_url(self.data_dir)


def sqlite_url(data_dir: Path) -> str:
    """The database that a coordinator makes in its data directory if it is given none."""
    return f"sqlite:///{data_dir / DATABASE}"
