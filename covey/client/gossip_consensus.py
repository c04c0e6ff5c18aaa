"""The consensus model of a gossip run: the mean of its nodes' models, weighted by their mass."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from covey.client.gossip_nodes import NodeState, mass_of, read_node
from covey.errors import NotFound, SpecError
from covey.metrics import counted, ratios
from covey.storage.files.spool import disk_errors
from covey.worker.client.supervisor import WorkerSupervisor
from covey.worker.jobs.evaluation import EvaluateJob
from covey.worker.jobs.mixtures import MixJob, Portion
from covey.worker.jobs.operations import EVALUATE, MIX


@dataclass(frozen=True)
class NodePart:
    """A node's model in the mean: its mass, its Euclidean distance from the mean, and the step that it was in."""

    node: str
    weight: float
    distance: float
    steps: int


@dataclass(frozen=True)
class Consensus:
    """The mean: of which run, its digest, the mass of all its nodes, and the largest distance from it."""

    run: str
    model_sha256: str
    weight: float
    spread: float
    nodes: tuple[NodePart, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)
    """On the task's central data; empty: it was not evaluated."""


def export_consensus(
    data_dirs: Sequence[Path], out: Path, run: str | None = None, *, evaluated: bool = False
) -> Consensus:
    """Write the mean of nodes' newest models that are on record.

    Args:
        data_dirs: The nodes' data directories.
        out: The safetensors file to write; one that is there is replaced.
        run: The run's name, where there are several.
        evaluated: Whether to evaluate it, on the task's central data; the task is installed here, not named by path.

    Raises:
        NotFound: There is no such run, or a node published nothing yet.
        SpecError: The nodes are not of one run.
        StoreError: The file cannot be written.
    """
    nodes = [read_node(data_dir, run) for data_dir in data_dirs]
    if len({(node.facts.name, node.facts.spec) for node in nodes}) != 1:
        raise SpecError("these nodes are not of one run: " + ", ".join(sorted({node.facts.name for node in nodes})))
    published = [(node, node.model) for node in nodes if node.model is not None and node.machine.exchange.kept > 0]
    if not published:
        raise NotFound("none of these nodes has published a model")
    known = [(node, path) for node, path in published if path is not None]
    return asyncio.run(_export(known, out, evaluated=evaluated))


async def _export(nodes: Sequence[tuple[NodeState, Path]], out: Path, *, evaluated: bool) -> Consensus:
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="covey-export-"))
    worker = WorkerSupervisor(folder, device="cpu", log_format="console")
    layout = nodes[0][0].facts.layout
    whole = sum(node.machine.exchange.kept for node, _ in nodes)
    try:
        portions = tuple(Portion(path, node.machine.exchange.kept / whole) for node, path in nodes)
        mean = folder / "mean.safetensors"
        mixed = await worker.do(MIX, MixJob(layout, nodes[0][1], mean, portions, synced=False))
        parts = []
        for node, path in nodes:
            distance = MixJob(layout, path, folder / "distance.safetensors", (Portion(mean, 1.0),), synced=False)
            moved = await worker.do(MIX, distance)
            parts.append(NodePart(node.facts.me.node, mass_of(node), moved.moved, node.machine.step))
        metrics = await _evaluation(worker, nodes[0][0], mean) if evaluated else {}
        with disk_errors(out):
            await asyncio.to_thread(shutil.copyfile, mean, out)
    finally:
        await worker.stop()
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    weight, spread = sum(part.weight for part in parts), max(part.distance for part in parts)
    return Consensus(nodes[0][0].facts.name, mixed.model_sha256, weight, spread, tuple(parts), metrics)


async def _evaluation(worker: WorkerSupervisor, node: NodeState, model: Path) -> Mapping[str, float]:
    facts = node.facts
    job = EvaluateJob(facts.name, facts.spec, model, "central", layout=facts.layout)
    return counted(ratios((await worker.do(EVALUATE, job)).metrics))
