"""One measured run on a real federation: what it took, by the store's times and the kernel's counts."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.floor import run_floor
from benchmarks.measuring.sampler import Role, Sample, Sampler, cpu_between
from covey.testing.federation import Federation

FLOAT_BYTES = 4
POLL_S = 0.5
"""How often the run is looked at: seldom, because looking costs the coordinator time."""

SYNTHETIC = """
name = "benchmark"
seed = 1
[task]
name = "synthetic"
options = {{ parameters = {parameters}, tensors = {tensors}{more} }}
[evaluation]
every = 0
[rounds]
count = {rounds}
min_nodes = {nodes}
"""

DIGITS = """
name = "digits"
seed = 7
[task]
name = "digits"
options = {{ hidden = 64 }}
[training]
learning_rate = 0.1
batch_size = 32
local_epochs = 1
[rounds]
count = {rounds}
min_nodes = {nodes}
"""
DIGITS_PARAMETERS = 64 * 64 + 64 + 64 * 10 + 10


@dataclass(frozen=True)
class Work:
    """What is measured.

    Attributes:
        nodes: Node processes.
        parameters: Float32 values of the synthetic model.
        tensors: In how many tensors they are.
        rounds: All rounds; the first one is left out of the times.
        task: `synthetic` (no learning: overhead and transport alone) or `digits` (real training).
        floor: Whether the floor is measured too.
        timeout_s: For the whole run.
        profile: Where the coordinator's cProfile data goes; None: no profile.
        root: Where the federation lives; None: a temporary folder that is deleted afterwards.
        keep_going: Whether a run that failed or took too long is reported with the rounds that it did.
        rule: The aggregator.
        f: How many Byzantine nodes it is told to assume; None: a rule without that option.
        codec: The codec.
        server_optimizer: What makes the next model of what the rule gives.
        dtype: Of the synthetic model's values.
        still: Whether the synthetic training changes nothing.
    """

    nodes: int = 4
    parameters: int = 10_000
    tensors: int = 1
    rounds: int = 30
    task: str = "synthetic"
    floor: bool = True
    timeout_s: float = 600.0
    profile: Path | None = None
    root: Path | None = None
    keep_going: bool = False
    rule: str = "mean"
    f: int | None = None
    codec: str = "none"
    server_optimizer: str = "sgd"
    dtype: str = "float32"
    still: bool = False

    @property
    def model_bytes(self) -> int:
        """Bytes of the model: what every node receives, and sends, in a round."""
        if self.task == "digits":
            return FLOAT_BYTES * DIGITS_PARAMETERS
        return (FLOAT_BYTES if self.dtype == "float32" else FLOAT_BYTES // 2) * self.parameters

    @property
    def spec_toml(self) -> str:
        """The run specification."""
        template = DIGITS if self.task == "digits" else SYNTHETIC
        more = "" if self.dtype == "float32" else f', dtype = "{self.dtype}"'
        more += ", still = true" if self.still else ""
        numbers = {
            "more": more,
            "parameters": self.parameters,
            "tensors": self.tensors,
            "rounds": self.rounds,
            "nodes": self.nodes,
        }
        options = "" if self.f is None else f"[aggregation.options]\nf = {self.f}\n"
        rule = f'[aggregation]\nname = "{self.rule}"\n{options}[exchange]\ncodec = "{self.codec}"\n'
        rule += f'[server_optimizer]\nname = "{self.server_optimizer}"\n'
        return template.format(**numbers) + rule


@dataclass(frozen=True)
class Measured:
    """What one run took.

    Attributes:
        work: What was measured.
        times_s: Seconds of each round from the second on: from one commit to the next.
        floor_s: Seconds of each round of the floor, in the same run; empty if it was not measured.
        startup_s: From the start of the coordinator's process to the first committed round, joining included,
            without the pause in which the idle memory was measured.
        wall_s: From the opening of round 1 to the last commit.
        bytes_per_round: Received and sent by the coordinator.
        cpu_s: CPU seconds a round, by role.
        rss_mb: Peaks of resident memory, 1e6 bytes.
        metrics: Of the last version.
        failure: Why the run did not complete; empty if it did.
        floor_cpu_s: CPU seconds of a round of the floor; 0: not measured.
    """

    work: Work
    times_s: list[float]
    floor_s: list[float]
    startup_s: float
    wall_s: float
    bytes_per_round: float
    cpu_s: dict[Role, float]
    rss_mb: dict[str, float]
    metrics: dict[str, float] = field(default_factory=dict)
    failure: str = ""
    floor_cpu_s: float = 0.0

    @property
    def median_s(self) -> float:
        """Median round."""
        return statistics.median(self.times_s)

    @property
    def p95_s(self) -> float:
        """95th percentile of the rounds (linear between ranks)."""
        return percentile(self.times_s, 0.95)

    @property
    def floor_median_s(self) -> float | None:
        """Median round of the floor."""
        return statistics.median(self.floor_s) if self.floor_s else None

    def as_json(self) -> dict[str, Any]:
        """The line of `--json`: seconds, memory in 1e6 bytes; `cpu_s` and bytes are those of one round."""
        figures: dict[str, Any] = {
            "task": self.work.task,
            "nodes": self.work.nodes,
            "parameters": DIGITS_PARAMETERS if self.work.task == "digits" else self.work.parameters,
            "tensors": self.work.tensors,
            "rounds": len(self.times_s),
            "median_s": self.median_s,
            "p95_s": self.p95_s,
            "floor_median_s": self.floor_median_s,
            "floor_cpu_s": self.floor_cpu_s,
            "startup_s": self.startup_s,
            "wall_s": self.wall_s,
            "bytes_per_round": self.bytes_per_round,
            "cpu_s": sum(self.cpu_s.values()),
            "cpu_by_role_s": self.cpu_s,
            "rss_mb": self.rss_mb,
        }
        if self.metrics:
            figures["metrics"] = self.metrics
        return {**figures, **({"failure": self.failure} if self.failure else {})}


def percentile(values: Sequence[float], fraction: float) -> float:
    """The value below which `fraction` of them lie, linear between ranks."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * fraction
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def measure(work: Work) -> Measured:
    """Run the floor's first half, the federation, and the floor's second half; never two of them at once.

    Raises:
        FederationError: A daemon died, or the run failed or took too long (unless `work.keep_going`).
    """
    half = (work.rounds + 1) // 2
    before = [run_floor(work.nodes, work.model_bytes, half)] if work.floor else []
    with ExitStack() as stack:
        root = work.root or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="covey-benchmark-")))
        federation = stack.enter_context(Federation(root, work.nodes))
        measured = _measure(work, federation)
    floors = [*before, run_floor(work.nodes, work.model_bytes, half)] if work.floor else []
    times_s = [seconds for floor in floors for seconds in floor.times_s]
    return replace(
        measured, floor_s=times_s, floor_cpu_s=statistics.fmean(floor.cpu_s for floor in floors) if floors else 0.0
    )


def _measure(work: Work, federation: Federation) -> Measured:
    started_at = time.time()
    profiler = ["-m", "cProfile", "-o", str(work.profile)] if work.profile else []
    with Sampler(federation) as sampler:
        federation.start(python=profiler)
        quiet = sampler.wait_quiet()
        submitted_at = time.time()
        run = federation.submit(work.spec_toml)
        failure = _wait(work, federation, run)
        shown, rounds = federation.show(run), federation.rounds(run)
    committed = [entry for entry in rounds if entry["state"] == "committed"]
    if len(committed) < 2:
        raise RuntimeError(f"fewer than two rounds were committed; {failure}")
    during = [sample for sample in sampler.samples if sample.at >= submitted_at]
    commits = [entry["committed_at"] for entry in committed]
    spent = cpu_between(sampler.samples, commits[0], commits[-1])
    return Measured(
        work=work,
        times_s=[after - before for before, after in itertools.pairwise(commits)],
        floor_s=[],
        startup_s=quiet[0].at - started_at + commits[0] - submitted_at,
        wall_s=commits[-1] - committed[0]["started_at"],
        bytes_per_round=statistics.median(r["bytes_received"] + r["bytes_sent"] for r in committed),
        cpu_s={role: used / (len(commits) - 1) for role, used in spent.items()},
        rss_mb=_memory(quiet[-1], during),
        metrics={k: v for k, v in shown["metrics"].items() if isinstance(v, float)},
        failure=failure,
    )


def _wait(work: Work, federation: Federation, run: str) -> str:
    try:
        federation.wait(run, timeout_s=work.timeout_s, poll_s=POLL_S)
    except Exception as error:
        if not work.keep_going:
            raise
        return str(error).splitlines()[0]
    return ""


def _memory(idle: Sample, during: Sequence[Sample]) -> dict[str, float]:
    peaks = {
        "coordinator_idle": idle.coordinator.private_mb,
        "coordinator_peak": max(sample.coordinator.private_mb for sample in during),
        "node_peak": max(sample.node.private_mb for sample in during),
        "worker_peak": max(sample.worker.private_mb for sample in during),
        "mapped_mb": max(sample.coordinator.mapped_mb for sample in during),
    }
    return {name: round(value, 1) for name, value in peaks.items()}
