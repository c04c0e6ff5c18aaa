"""A swarm whose nodes work as simulated nodes do: in model files, by the worker's own mixing, at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from covey.artifact import artifact_of_file
from covey.gossip.ledger import Incarnation
from covey.gossip.protocols.encoding import is_encoded
from covey.gossip.protocols.runs import combination_of
from covey.learning.models.state import layout_of, write_model
from covey.node.gossip.executor import Executor
from covey.node.gossip.ports import State
from covey.simulation.gossip.models import Model, ModelFolder
from covey.simulation.gossip.peer import VirtualLabour, World
from covey.spec import GossipSpec
from covey.worker.execute.coded_bodies import codec_of
from covey.worker.execute.mix_op import mix
from covey.worker.files.estimates import STAMP_BYTES, Estimates, read_rows
from covey.worker.files.mapped import MappedModel
from covey.worker.jobs.files import WrittenFile
from covey.worker.jobs.mixtures import MixJob, MixResult
from covey.worker.jobs.training import TrainResult
from tests.unit.gossip.protocols.dense import Vector
from tests.unit.gossip.protocols.vector_nodes import Gradient, VectorSwarm, _Queue

HOST: Any = None  # mixing asks nothing of it
RATE = 0.1


class OneVector(nn.Module):
    """A model of one tensor."""

    def __init__(self, values: Vector) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(values.astype(np.float32)))


class FirstModel(Model):
    """A file that stays."""

    def copy(self) -> FirstModel:
        """Nothing ever changes it."""
        return FirstModel(self.path, self.sha256)


class AtOnce:
    """Time and workers of one node: work is done when the test asks for it.

    Args:
        node: Whose.
        gradient: Of all nodes.
        check: Told each mixture.
    """

    now = 0.0

    def __init__(self, node: str, gradient: Gradient, check: Callable[[MixJob, MixResult], None]) -> None:
        self._node, self._gradient, self._check = node, gradient, check
        self.queue = _Queue()

    def after(self, delay: float, happen: Callable[[Any], None], work: Callable[[], Any]) -> None:
        """Work, later."""
        self.queue.append(lambda: happen(work()))

    def train(self, job: tuple[Path, Path]) -> Callable[[], TrainResult]:
        """One step along the gradient."""

        def work() -> TrainResult:
            base, out = job
            z = MappedModel(base, self.layout).dense().numpy().astype(np.float64)
            (-RATE * self._gradient(self._node, z)).astype(np.float32).tofile(out)
            return TrainResult((WrittenFile("model", out, artifact_of_file(out)),), 1, 1, 0.0, {}, {})

        return work

    def mix(self, job: MixJob) -> Callable[[], MixResult]:
        """By the worker's own operation."""

        def work() -> MixResult:
            result = mix(job, HOST)
            self._check(job, result)
            return result

        return work

    layout: Any


class FileSwarm(VectorSwarm):
    """Nodes of a run.

    Args:
        spec: The run.
        models: The first model of each node, float `[d]`.
        gradient: Of all nodes.
        folder: For their files.
        has_slow_disks: As `VirtualSwarm`.
    """

    def __init__(
        self,
        spec: GossipSpec,
        models: Mapping[str, Vector],
        gradient: Gradient,
        folder: Path,
        *,
        has_slow_disks: bool = False,
    ) -> None:
        self._folder, self._models = folder, ModelFolder(folder / "models")
        self._names = list(models)
        self.layout = layout_of(OneVector(next(iter(models.values()))))
        self.refused = self.mixed = self.whole = 0
        """Bodies that were passed over; that came; that were models."""
        self.refused_of: set[str] = set()
        """Whose were passed over."""
        super().__init__(spec, models, gradient, has_slow_disks=has_slow_disks)

    @override
    def enter(self, node: Any) -> Any:
        spec = self._run
        first = self._folder / f"first-{node.me}"
        sha256 = write_model(first, self.layout, OneVector(node.first)).model_sha256
        at_once = AtOnce(node.me.node, self._gradient, self._check)
        at_once.layout = self.layout
        anything: Any = at_once
        world = World(
            anything,
            anything,
            self.planner,
            self._models,
            self._models,
            self.layout.to_json(),
            spec.to_json(),
            is_encoded(spec),
            {name: place for place, name in enumerate(self._names)},
            lambda *message: None,
            lambda node, step, state, files: (state.model.path, files["model"]),  # type: ignore[arg-type, return-value]
            lambda peer: None,
        )
        node.first, node.labour = FirstModel(first, sha256), VirtualLabour(node.me.node, world, 1.0)
        node.labour.queue = at_once.queue
        node.executor = Executor(node.fresh(), State(node.first), node._ports(), node._ended)
        return node

    def _check(self, job: MixJob, result: MixResult) -> None:
        self.refused += len(result.refused)
        self.refused_of |= {job.portions[place].source for place in result.refused}
        self.mixed += len(job.portions)
        self.whole += sum(portion.model.stat().st_size >= self.layout.file_bytes for portion in job.portions)

    def until_step(self, step: int) -> None:
        """Let all go on until each is there."""
        while any(node.machine.step < step for node in self.up):
            for _ in range(len(self.messages)):
                self.deliver()
            for node in self.up:
                node.finish_work()

    def estimates(self, me: Incarnation) -> Estimates:
        """What a node knows."""
        state, codec = self.nodes[me].executor.state, codec_of(self._run, self.layout, STAMP_BYTES)
        assert state.kept is not None
        assert codec is not None
        kept: Any = state.kept
        return read_rows(kept.path, int(self._run.gossip.momentum != "none"), self.layout, codec)[1]

    @property
    def models(self) -> Vector:
        """Of all nodes, float32 `[n, d]`."""
        bodies: list[Any] = [node.executor.model for node in self.nodes.values()]
        return np.stack([MappedModel(body.path, self.layout).dense().numpy() for body in bodies])

    def neighbours(self, node: str) -> set[str]:
        """Of the run's graph."""
        graph = combination_of(self._run, self._names).graphs[0]
        return {self._names[target] for target in graph[self._names.index(node)]}
