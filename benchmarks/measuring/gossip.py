"""One measured gossip run on real nodes: what its exchanges took, by their records and the kernel's counts."""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.measuring.federation import FLOAT_BYTES
from benchmarks.measuring.proc import state_of
from benchmarks.measuring.sampler import Sampler, cpu_between
from benchmarks.peer_streams import graphs_of, run_streams
from covey.gossip.averaging import Averaging, rounds_for
from covey.node.gossip.folders import newest
from covey.node.gossip.record.database import open_record
from covey.node.gossip.record.reader import rows_of
from covey.node.gossip.record.schema import ExchangeRow, SpanRow, StepRow
from covey.spec import GossipSection
from covey.testing.gossip import GossipNodes
from covey.testing.launch.processes import children_of

SPEC = """
name = "benchmark"
mode = "gossip"
seed = 1
[task]
name = "synthetic"
options = {{ parameters = {parameters}, train_seconds = {train_seconds} }}
[gossip]
steps = {steps}
overlap = {overlap}
min_nodes = {nodes}
global_every = {global_every}
topology = {{ name = "{topology}" }}
"""
PUBLISHED, TRAINED = "gossip-publish-recorded", "gossip-trained"
"""Fault points: what is sent is on record, and nothing is sent yet; a training is over. Where steps follow each other
without a training, a node may have published before a peer has its last batch, so there it is held after trainings."""
LOOK_S, APART_S = 0.01, 5.0
"""How often it is looked whether all are suspended, and how long those that are wait at most: at its end a node
publishes once more, and not all do at once."""
LEFT_OUT = 2
"""Steps at the beginning whose times do not count: connections are made, files are new."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class GossipWork:
    """What is measured.

    Attributes:
        nodes: Node processes.
        parameters: Float32 values of the model.
        topology: Its name, without options.
        steps: Of each node; the first `LEFT_OUT` are left out of the times.
        overlap: As in `[gossip]`.
        train_seconds: How long each step trains; 0: as long as it takes to touch the model.
        together: At which fault point a node is suspended until all are, so that they go on at once, as the processes
            do that bare streams are between; empty: each goes on when it can, while others train.
        durability: `process` or `power`.
        global_every: As in `[gossip]`. If not 0, only steps without training are measured: until all have one mean.
        timeout_s: For the whole run.
        root: Where the nodes live; None: a temporary folder that is deleted afterwards.
    """

    nodes: int = 4
    parameters: int = 25_000_000
    topology: str = "exponential"
    steps: int = 8
    overlap: int = 0
    train_seconds: float = 0.0
    together: str = ""
    durability: Literal["process", "power"] = "process"
    global_every: int = 0
    timeout_s: float = 600.0
    root: Path | None = None

    @property
    def model_bytes(self) -> int:
        """Bytes of a model: what a batch brings."""
        return FLOAT_BYTES * self.parameters

    @property
    def spec_toml(self) -> str:
        """The run's specification."""
        names = ("parameters", "train_seconds", "steps", "overlap", "nodes", "global_every", "topology")
        return SPEC.format(**{name: getattr(self, name) for name in names})

    @property
    def averaging(self) -> Averaging:
        """Which steps train."""
        return Averaging(self.global_every, rounds_for(self.nodes, GossipSection().global_spread))


@dataclass(frozen=True)
class GossipMeasured:
    """What a run took. Times of a step are medians over steps and nodes.

    Attributes:
        work: What was measured.
        exchange_s: Of each step: from the first byte that any node sent until the last batch was on record. Nodes that
            train longer than others are a part of it.
        batch_s: Of one batch, from the first try until its peer said that it is on record: medians over all.
        mixed_s: As `exchange_s`, until the last node had mixed.
        step_s: From one publication of a node to its next.
        trained_s: Of a step, training.
        blocked_s: Of a step, between trainings: exchanging, mixing, and waiting for peers.
        floor_s: Of each step, bare streams of the same bytes.
        floor_cpu_s: Processor seconds of bare streams, a step of all nodes.
        models: Batches in a step, of all nodes.
        cpu_s: Processor seconds a step of all nodes, by role: daemons and workers. Where steps without training are
            measured, of those.
        averaged_s: Of each row of steps without training, from the first byte that any node sent until all had mixed.
        peak_mb: Largest private memory of a daemon and of a worker, 1e6 bytes.
        whole_s: From the first publication to the last one.
        is_exact: Whether all mass was there at the end.
    """

    work: GossipWork
    exchange_s: list[float]
    batch_s: float
    mixed_s: list[float]
    step_s: float
    trained_s: float
    blocked_s: float
    floor_s: list[float]
    floor_cpu_s: float
    models: float
    cpu_s: dict[str, float]
    peak_mb: dict[str, float]
    whole_s: float
    is_exact: bool
    averaged_s: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        """The median exchange."""
        return statistics.median(self.exchange_s)

    @property
    def ratio(self) -> float:
        """How many times as long as bare streams; NaN: they were not measured."""
        return self.median_s / statistics.median(self.floor_s) if self.floor_s else float("nan")

    @property
    def rate(self) -> float:
        """Bytes of models in an exchange, of all nodes together, a second: MB/s."""
        return self.models * self.work.model_bytes / self.median_s / 1e6

    @property
    def goodput(self) -> float:
        """The part of its time that a node computes: training / (training + blocked)."""
        return self.trained_s / (self.trained_s + self.blocked_s) if self.trained_s else 0.0

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        work = {
            name: getattr(self.work, name)
            for name in ("nodes", "parameters", "topology", "overlap", "together", "durability")
        }
        lists = {"exchanges_s": self.exchange_s, "mixed_s": self.mixed_s, "floors_s": self.floor_s}
        figures = {
            "exchange_s": self.median_s,
            "floor_s": statistics.median(self.floor_s) if self.floor_s else None,
            "ratio": self.ratio if self.floor_s else None,
            "exchanged_and_mixed_s": statistics.median(self.mixed_s),
            "mb_per_s": self.rate,
            "models_a_step": self.models,
            "goodput": self.goodput,
        }
        names = (
            "batch_s",
            "step_s",
            "trained_s",
            "blocked_s",
            "floor_cpu_s",
            "cpu_s",
            "peak_mb",
            "whole_s",
            "is_exact",
        )
        return {**work, **figures, **{name: getattr(self, name) for name in names}, **lists}


class Processes:
    """The run's processes, as a sampler looks for them."""

    def __init__(self, nodes: GossipNodes) -> None:
        self._nodes = nodes

    @property
    def pids(self) -> dict[str, int]:
        """The daemons."""
        return {daemon.name: daemon.pid for daemon in self._nodes.daemons if daemon is not None and daemon.alive}

    @property
    def worker_pids(self) -> dict[str, int]:
        """Their workers."""
        daemons = self.pids
        children = children_of(*daemons.values())
        return {name: children[pid][0] for name, pid in daemons.items() if children.get(pid)}


def measure_gossip(work: GossipWork, *, floor: bool = True) -> GossipMeasured:
    """Run it, and the floor after it.

    Raises:
        CoveyError: A node failed; the message has the end of its log.
    """
    with ExitStack() as stack:
        root = work.root or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="covey-gossip-")))
        with GossipNodes(root, work.spec_toml, nodes=work.nodes) as nodes, Sampler(Processes(nodes)) as sampler:
            held = {"COVEY_FAULTS": f"{work.together}:1+:suspend"} if work.together else {}
            nodes.start_all(options=("--durability", work.durability), env=held)
            with _released([nodes.daemon(index).pid for index in range(work.nodes)] if work.together else []):
                nodes.wait(work.timeout_s)
            is_exact = nodes.audit()["exact"]
        spans = [row for index in range(work.nodes) for row in _rows(nodes.folder(index), SpanRow)]
        steps = [_rows(nodes.folder(index), StepRow) for index in range(work.nodes)]
        began, ended = min(rows[LEFT_OUT]["at"] for rows in steps), max(rows[-1]["at"] for rows in steps)
        counted = work.averaging.steps(work.steps) - LEFT_OUT
        graphs = graphs_of(work.topology, work.nodes, counted + LEFT_OUT)[LEFT_OUT:]
        bare = run_streams(graphs, work.model_bytes, syncs=work.durability == "power", root=root) if floor else None
    batches = [span for span in spans if span["kind"] == "send" and span["step"] >= LEFT_OUT]
    rows = _rounds(spans, work)
    used = [cpu_between(sampler.samples, *row) for row in rows] or [cpu_between(sampler.samples, began, ended)]
    steps_in_each = work.averaging.rounds if rows else counted
    return GossipMeasured(
        work=work,
        exchange_s=_windows(spans, work, ends=("take",)),
        batch_s=statistics.median(span["ended"] - span["began"] for span in batches),
        mixed_s=_windows(spans, work, ends=("take", "mix")),
        step_s=statistics.median(_differences(steps, "at")),
        trained_s=statistics.median(_differences(steps, "trained_s")),
        blocked_s=statistics.median(_differences(steps, "blocked_s")),
        floor_s=bare.times_s if bare else [],
        floor_cpu_s=bare.cpu_s if bare else 0.0,
        models=len([span for span in spans if span["kind"] == "take" and span["step"] >= LEFT_OUT]) / counted,
        cpu_s={
            role: statistics.median(each.get(role, 0.0) for each in used) / steps_in_each
            for role in ("node", "node_worker")
        },
        peak_mb={
            "daemon": max((sample.node.private_mb for sample in sampler.samples), default=0.0),
            "worker": max((sample.worker.private_mb for sample in sampler.samples), default=0.0),
        },
        whole_s=ended - min(rows[0]["at"] for rows in steps),
        is_exact=is_exact,
        averaged_s=[until - since for since, until in rows],
    )


@contextmanager
def _released(pids: Sequence[int]) -> Iterator[None]:
    """Meanwhile, let processes that are suspended go on once all of them are: at once."""
    ended = threading.Event()

    def release() -> None:
        since = time.monotonic()
        while not ended.wait(LOOK_S):
            states = {pid: state for pid in pids if (state := state_of(pid)) not in ("", "Z")}
            waiting = [pid for pid, state in states.items() if state == "T"]
            if not waiting:
                since = time.monotonic()
            elif len(waiting) == len(states) or time.monotonic() - since > APART_S:
                for pid in waiting:
                    os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=release, name="release", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def measure_run(folders: Sequence[Path]) -> dict[str, float]:
    """What a step of a run that is over cost, medians over steps and nodes: seconds, and bytes of models that left.

    Args:
        folders: The nodes' data directories.
    """
    steps = [_rows(folder, StepRow) for folder in folders]
    sent = sum(row["size_bytes"] for folder in folders for row in _rows(folder, ExchangeRow) if row["way"] == "out")
    trained_s, blocked_s = (statistics.median(_differences(steps, name)) for name in ("trained_s", "blocked_s"))
    return {
        "step_s": statistics.median(_differences(steps, "at")),
        "trained_s": trained_s,
        "blocked_s": blocked_s,
        "goodput": trained_s / (trained_s + blocked_s),
        "sent_mb": sent / sum(map(len, steps)) / 1e6,
    }


def step_seconds(folder: Path) -> float:
    """Mean seconds from one publication of a node to its next, of a run that is over; the last record is its end."""
    steps = _rows(folder, StepRow)[LEFT_OUT:-1]
    return float(steps[-1]["at"] - steps[0]["at"]) / (len(steps) - 1)


def _rows(folder: Path, table: Any) -> Sequence[Row]:
    engine = open_record(newest(folder, None))
    try:
        return rows_of(engine, table)
    finally:
        engine.dispose()


def _differences(steps: Iterable[Sequence[Row]], name: str) -> list[float]:
    """From each step that counts to the next, of all nodes."""
    return [
        after[name] - before[name]
        for rows in steps
        for before, after in zip(rows[LEFT_OUT:], rows[LEFT_OUT + 1 :], strict=False)
    ]


def _windows(spans: Sequence[Row], work: GossipWork, ends: Sequence[str]) -> list[float]:
    """For each step that is measured: from when its first batch was sent until the last of `ends` was over."""
    sent = [span for span in spans if span["kind"] == "send" and span["step"] >= LEFT_OUT]
    windows = []
    for step in sorted({span["step"] for span in sent}):
        if work.global_every and not work.averaging.is_round(step):
            continue
        began = min(span["began"] for span in sent if span["step"] == step)
        over = [span["ended"] for span in spans if span["kind"] in ends and span["step"] == step]
        if over:
            windows.append(max(over) - began)
    return windows


def _rounds(spans: Sequence[Row], work: GossipWork) -> list[tuple[float, float]]:
    """Each row of steps without training: from when its first batch was sent until all nodes had mixed its last one."""
    steps = sorted({span["step"] for span in spans if span["kind"] == "mix" and work.averaging.is_round(span["step"])})
    rows = []
    for last in steps:
        first = last - work.averaging.rounds + 1
        if first >= LEFT_OUT and first in steps and not work.averaging.is_round(first - 1):
            began = min(span["began"] for span in spans if span["kind"] == "send" and span["step"] == first)
            rows.append((began, max(span["ended"] for span in spans if span["kind"] == "mix" and span["step"] == last)))
    return rows
