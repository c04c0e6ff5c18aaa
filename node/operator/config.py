"""What a node's operator decides: the options of `covey node start`, and the file `node.toml`."""

from __future__ import annotations

import math
import sys
import tomllib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue, ValidationError

from covey.errors import PolicyError, SpecError
from covey.layout import Layout
from covey.metrics import Metrics
from covey.node.operator.adversary import Drill
from covey.node.operator.policy import Policy, Settings
from covey.node.site_log.scrubbing import Scrubber
from covey.spec import RunSpec, above_bounds
from covey.telemetry import LogFormat
from covey.texts import read_text, why_no_toml
from covey.validation import explain
from covey.wire.transfers.lanes import MAX_LANES
from covey.worker.client.confinement import Confinement
from covey.worker.jobs.training import UNBOUNDED, FilterOrder, TrainLimits

SETTINGS_FILE = "node.toml"
ANY_HOST = ("0.0.0.0", "[::]", "")
IDENTITY_FOLDER = "identity"
"""In a node's data directory, as the settings' file."""


class PeerAccess(Settings):
    """[peers]: how other nodes reach this one in a gossip run."""

    listen: str = Field(default="", pattern=r"^(|\S+:\d{1,5})$")
    """Where it listens for them, `HOST:PORT`; empty: nowhere, it only calls."""
    advertise: str = Field(default="", pattern=r"^(|\S+:\d{1,5})$")
    """The address by which they call it, where that is not `listen`."""
    relay: str = Field(default="", pattern=r"^(|\S+:\d{1,5})$")
    """The relay at which it waits for them instead."""
    pause_s: float = Field(default=3.0, gt=0, le=86_400)
    """How long a pause of theirs is borne before their silence is judged."""
    durability: Literal["process", "power"] = "process"
    """What is acknowledged survives the end of this process, or a power cut too."""
    quota_gib: float = Field(default=math.inf, gt=0)
    """Most disk for bodies of peers that come, and wait to be mixed in."""

    @property
    def address(self) -> str:
        """Where they call it; empty: nowhere.

        Raises:
            SpecError: `listen` says every address of this machine, and not which one to call.
        """
        if self.relay or self.advertise:
            return self.relay or self.advertise
        host, _, port = self.listen.rpartition(":")
        if self.listen and (host in ANY_HOST or port == "0"):
            raise SpecError(
                f"peers cannot call {self.listen}: say by which address they reach this node "
                "(--peer-advertise HOST:PORT, or [peers] advertise in node.toml)"
            )
        return self.listen


class NodeData(Settings):
    """[data]: what the tasks are told about this node; never sent."""

    paths: dict[str, str] = Field(default_factory=dict)
    options: dict[str, JsonValue] = Field(default_factory=dict)


class Limits(Settings):
    """[limits]: what work on this node may take."""

    stall_s: float = Field(default=math.inf, gt=0)
    """How long a job may go without a step, whatever its run says."""
    disk_gib: float = Field(default=math.inf, gt=0)
    """Most disk for the model of a run, and the files beside it. Never more than is free."""
    connections: int = Field(default=MAX_LANES, ge=1, le=MAX_LANES)
    """Most connections of one transfer."""
    memory_gib: float = Field(default=math.inf, gt=0)
    """Most memory of the worker's own."""
    round_s: float = Field(default=math.inf, gt=0)
    """How long one training or evaluation may take."""
    parameters: float = Field(default=math.inf, gt=0)
    """Most parameters of a model."""
    epochs: float = Field(default=math.inf, gt=0)
    """Most passes over the data in one round."""
    least_batch_size: int = Field(default=1, ge=1)
    """Least examples of one step."""
    least_examples: int = Field(default=1, ge=1)
    """Least examples behind one update or gradient."""


class WorkerSettings(Settings):
    """[worker]: what the program is given that runs the tasks' code."""

    environment: tuple[str, ...] = ()
    """Variables of the daemon's environment that it sees."""


class NodeSettings(Settings):
    """The whole of `node.toml`."""

    policy: Policy = Policy()
    limits: Limits = Limits()
    worker: WorkerSettings = WorkerSettings()
    peers: PeerAccess = PeerAccess()
    data: NodeData = NodeData()


def read_settings(path: Path) -> NodeSettings:
    """Read `node.toml`; a missing file means the defaults.

    Raises:
        SpecError: Not TOML, an unknown key or a wrong value; the message names file, key and choices.
    """
    try:
        text = read_text(path)
        return NodeSettings.model_validate(tomllib.loads(text))
    except FileNotFoundError:
        return NodeSettings()
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not a text file in UTF-8 ({error}); save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path} is not valid TOML: {why_no_toml(text, error)}") from error
    except ValidationError as error:
        raise SpecError(f"{path}: {explain(error, NodeSettings)}") from error


@dataclass(frozen=True)
class NodeConfig:
    """A node's options and settings. Make it with `load`."""

    data_dir: Path
    device: str = "auto"
    """What the worker trains on: `auto`, `cpu`, `cuda` or `cuda:N`."""
    log_format: LogFormat = "console"
    log_level: str = "info"
    server: str | None = None
    """The coordinator's address, where it is another one than at enrolment."""
    settings: NodeSettings = field(default_factory=NodeSettings)
    drill: Drill | None = None
    """What the node attacks with, on a drill node."""
    metrics: str | None = None
    """Where Prometheus may scrape; None: nowhere. On loopback without TLS, else for admins' certificates only."""
    peer_listen: str | None = None
    """Instead of [peers] in the settings, as the two that follow; None: as these say."""
    peer_advertise: str | None = None
    peer_relay: str | None = None

    @classmethod
    def load(
        cls,
        data_dir: Path,
        *,
        device: str = "auto",
        log_format: LogFormat = "console",
        log_level: str = "info",
        server: str | None = None,
        drill: Drill | None = None,
        metrics: str | None = None,
        peer_listen: str | None = None,
        peer_advertise: str | None = None,
        peer_relay: str | None = None,
    ) -> NodeConfig:
        """The options, with the settings from the data directory's `node.toml`.

        Raises:
            SpecError: As `read_settings`.
        """
        settings = read_settings(data_dir / SETTINGS_FILE)
        peers = peer_listen, peer_advertise, peer_relay
        return cls(data_dir, device, log_format, log_level, server, settings, drill, metrics, *peers)

    @property
    def policy(self) -> Policy:
        """What a run may ask of this node."""
        return self.settings.policy

    @property
    def paths(self) -> dict[str, str]:
        """Where a task finds this node's data."""
        return self.settings.data.paths

    @property
    def options(self) -> dict[str, JsonValue]:
        """What a task is told about this node."""
        return self.settings.data.options

    @property
    def peers(self) -> PeerAccess:
        """How other nodes reach this one."""
        told = {"listen": self.peer_listen, "advertise": self.peer_advertise, "relay": self.peer_relay}
        return self.settings.peers.model_copy(update={name: text for name, text in told.items() if text is not None})

    @property
    def limits(self) -> Limits:
        """What work on this node may take."""
        return self.settings.limits

    @property
    def confinement(self) -> Confinement:
        """What the worker cannot read, and what it is given."""
        gib = self.limits.memory_gib
        return Confinement(
            hidden=(self.data_dir / IDENTITY_FOLDER,),
            memory_bytes=int(gib * (1 << 30)) if math.isfinite(gib) else None,
            environment=self.settings.worker.environment,
            folders=self.drill.folders(self.data_dir) if self.drill is not None else (),
        )

    @property
    def train_limits(self) -> TrainLimits:
        """What only the worker can hold against the data."""
        limits, counts = self.limits, self.policy.label_counts
        epochs, parameters = min(limits.epochs, TrainLimits.epochs), min(limits.parameters, TrainLimits.parameters)
        policy = self.policy
        return TrainLimits(
            epochs,
            limits.least_batch_size,
            limits.least_examples,
            counts,
            parameters,
            policy.representations,
            max_epsilon=min(policy.max_epsilon, UNBOUNDED),
            max_delta=policy.max_delta,
            least_noise=policy.least_noise,
            min_k=policy.min_k,
        )

    @property
    def filters(self) -> tuple[FilterOrder, ...]:
        """What updates and metrics pass before they leave."""
        return tuple(FilterOrder(each.name, each.options) for each in self.policy.outgoing)

    @cached_property
    def _scrubber(self) -> Scrubber:
        folders = str(Path.home()), str(Path.cwd()), str(self.data_dir.absolute()), sys.prefix
        texts = [*self.paths.values(), *(value for value in self.options.values() if isinstance(value, str))]
        return Scrubber([*folders, *(text for text in texts if Path(text).is_absolute())])

    def scrubbed(self, text: str) -> str:
        """A text that leaves this node, without paths where the operator wants that."""
        return self._scrubber(text) if self.policy.scrub_paths else text

    def scrubbed_reasons(self, metrics: Metrics) -> Metrics:
        """Metrics, of which those that are missing say why."""
        return {name: self.scrubbed(value) if isinstance(value, str) else value for name, value in metrics.items()}

    def check_layout(self, layout: Layout) -> None:
        """Hold a model against the operator's limits.

        Raises:
            PolicyError: It is larger.
        """
        numel = layout.part("model").numel
        if numel > self.limits.parameters:
            raise PolicyError(
                f"a model of {numel:,} parameters; this node's operator allows {self.limits.parameters:,.0f} "
                f"([limits] parameters in {SETTINGS_FILE})"
            )

    def allows_path(self, name: str) -> bool:
        """Whether the operator allows this task, codec or other plug-in by its import path."""
        return name in self.policy.allow_paths

    def allows_paths(self, spec: RunSpec) -> bool:
        """Whether a run names something by an import path, and the operator allows all that it names so."""
        paths = spec.node_paths().values()
        return bool(paths) and all(map(self.allows_path, paths))

    def check_run(self, spec: RunSpec) -> None:
        """Hold a run against the operator's policy.

        Raises:
            PolicyError: It asks for more; the message says what is allowed, and what would have to change.
        """
        task, payload = spec.task.name, spec.exchange.payload if spec.facts.coordinated else "parameters"
        if task not in self.policy.tasks and not self.allows_path(task):
            key = "allow_paths" if ":" in task else "tasks"
            allowed = ", ".join((*self.policy.tasks, *self.policy.allow_paths)) or "none"
            raise PolicyError(
                f"task {task!r} is not allowed on this node (allowed: {allowed}); "
                f"its operator can add it to [policy] {key} in {SETTINGS_FILE}"
            )
        # Of what a node computes; how many rounds there are costs it nothing, and some that run have very many.
        for name in ("data", "training", "evaluation"):
            for wrong in above_bounds(getattr(spec, name), f"{name}."):
                raise PolicyError(f"{wrong}: this version of a node computes no more")
        for key, path in spec.node_paths().items():
            if not self.allows_path(path):
                raise PolicyError(
                    f"{key} {path!r} is not allowed on this node; its operator can add it to [policy] allow_paths in "
                    f"{SETTINGS_FILE}"
                )
        if payload not in self.policy.payloads:
            allowed = ", ".join(self.policy.payloads) or "none"
            raise PolicyError(
                f"payload {payload!r} is not allowed on this node (allowed: {allowed}); "
                f"its operator can add it to [policy] payloads in {SETTINGS_FILE}"
            )
        if self.train_limits.wants_privacy and not spec.facts.coordinated:
            raise PolicyError(
                f'mode "{spec.mode}" hides no single examples, and this node\'s operator wants that ([policy] '
                f"max_epsilon and least_noise in {SETTINGS_FILE})"
            )
        self.policy.check_mode(spec)
        training, limits = spec.training, self.limits
        if training.batch_size < limits.least_batch_size:
            raise PolicyError(
                f"batches of {training.batch_size} examples; this node's operator allows none below "
                f"{limits.least_batch_size} ([limits] least_batch_size in {SETTINGS_FILE})"
            )
        if payload != "gradient" and (training.local_epochs or 0) > limits.epochs:
            raise PolicyError(
                f"{training.local_epochs} epochs a round; this node's operator allows {limits.epochs:g} "
                f"([limits] epochs in {SETTINGS_FILE})"
            )
