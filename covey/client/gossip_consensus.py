"""The consensus model of a gossip run: the mean of its nodes' models, weighted by their mass where they have any."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from covey.client.gossip_nodes import NodeState, mass_of, read_node
from covey.errors import NotFound, SpecError
from covey.gossip.protocols.runs import protocol_of
from covey.gossip.push_sum.weighing import Weighs
from covey.metrics import counted, missing, ratios
from covey.node.operator.config import IDENTITY_FOLDER
from covey.storage.files.spool import disk_errors
from covey.worker.client.confinement import Confinement
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
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of this node's model on the task's central data; empty: it was not evaluated."""


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
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why metrics are missing, by name."""
    weighs: Weighs = "mass"
    """mass: nodes count by their mass; receiver: all count alike, for their mass says nothing."""


def export_consensus(
    data_dirs: Sequence[Path],
    out: Path,
    run: str | None = None,
    *,
    evaluated: bool = False,
    step: int | None = None,
    paths: Mapping[str, str] | None = None,
) -> Consensus:
    """Write the mean of nodes' models that are on record.

    Nodes count by the mass of which their models are part; where receivers weigh, all count alike.

    Args:
        data_dirs: The nodes' data directories.
        out: The safetensors file to write; one that is there is replaced.
        run: The run's name, where there are several.
        evaluated: Whether to evaluate it, and each node's model, on the task's central data; the task is installed
            here, not named by path.
        step: Of which published step; None: the newest of each.
        paths: Where the task finds its data.

    Raises:
        NotFound: There is no such run, a node published nothing yet, or does not keep the model of that step.
        SpecError: The nodes are not of one run, or keep models of their own and are several.
        StoreError: The file cannot be written.
    """
    nodes = [read_node(data_dir, run) for data_dir in data_dirs]
    if len({(node.facts.name, node.facts.spec) for node in nodes}) != 1:
        raise SpecError("these nodes are not of one run: " + ", ".join(sorted({node.facts.name for node in nodes})))
    protocol = nodes[0].spec.gossip.protocol.name
    if len(nodes) > 1 and protocol_of(nodes[0].spec.gossip, allow_path=True).own_models:
        raise SpecError(
            f'with protocol "{protocol}" nodes keep models of their own, which have no mean: name one data directory, '
            "and its node's model is written"
        )
    chosen = [part for node in nodes if (part := _chosen(node, step)).units > 0]
    if not chosen:
        raise NotFound("none of these nodes has published a model")
    hidden = tuple((data_dir / IDENTITY_FOLDER).absolute() for data_dir in data_dirs)
    return asyncio.run(_export(chosen, out, Confinement(hidden), paths or {}, evaluated=evaluated))


@dataclass(frozen=True)
class _Chosen:
    """A node's model, and for how much it counts; for nothing where it has none yet."""

    node: NodeState
    path: Path = Path()
    units: int = 0
    step: int = 0


def _chosen(node: NodeState, step: int | None) -> _Chosen:
    machine = node.machine
    if step is None:
        if node.model is None:
            return _Chosen(node)
        return _Chosen(node, node.model, machine.exchange.kept if node.has_mass else 1, machine.step)
    if step not in node.published:
        kept = ", ".join(map(str, sorted(node.published))) or "none"
        hint = "" if node.spec.gossip.keep_every else " (with `keep_every` in [gossip] models of earlier steps stay)"
        raise NotFound(
            f"{node.facts.me} does not keep its model of step {step}; those that it keeps are of: {kept}{hint}"
        )
    path, units = node.published[step]
    if not path.exists():
        raise NotFound(f"the model of step {step} is gone from the disk of {node.facts.me}: {path}")
    return _Chosen(node, path, units if node.has_mass else 1, step)


async def _export(
    chosen: Sequence[_Chosen], out: Path, confinement: Confinement, paths: Mapping[str, str], *, evaluated: bool
) -> Consensus:
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="covey-export-"))
    worker = WorkerSupervisor(folder, device="cpu", log_format="console", confinement=confinement)
    first, whole = chosen[0].node, sum(part.units for part in chosen)
    layout = first.facts.layout
    try:
        portions = tuple(Portion(part.path, part.units / whole) for part in chosen)
        mean = folder / "mean.safetensors"
        mixed = await worker.do(MIX, MixJob(layout, chosen[0].path, mean, portions, synced=False))
        parts = []
        for part in chosen:
            distance = MixJob(layout, part.path, folder / "distance.safetensors", (Portion(mean, 1.0),), synced=False)
            moved = (await worker.do(MIX, distance)).moved
            own = counted(await _evaluation(worker, part.node, part.path, paths)) if evaluated else {}
            mass = mass_of(part.node) if part.node.has_mass else 1.0
            parts.append(NodePart(part.node.facts.me.node, mass, moved, part.step, own))
        metrics = await _evaluation(worker, first, mean, paths) if evaluated else {}
        with disk_errors(out):
            await asyncio.to_thread(shutil.copyfile, mean, out)
    finally:
        await worker.stop()
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    weight, spread = sum(part.weight for part in parts), max(part.distance for part in parts)
    return Consensus(
        first.facts.name,
        mixed.model_sha256,
        weight,
        spread,
        tuple(parts),
        counted(metrics),
        missing(metrics),
        first.machine.policy.weighs,
    )


async def _evaluation(
    worker: WorkerSupervisor, node: NodeState, model: Path, paths: Mapping[str, str]
) -> Mapping[str, float | str]:
    facts = node.facts
    own = node.spec.task.nodes.get(facts.me.node, {})
    job = EvaluateJob(facts.name, facts.spec, model, "central", node_paths=paths, layout=facts.layout, task_options=own)
    return ratios((await worker.do(EVALUATE, job)).metrics)
