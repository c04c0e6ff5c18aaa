"""Rounds of a method in this process: the worker's own operations, without daemons, to test what a method computes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from covey.aggregation.verdicts import Verdict
from covey.layout import Layout
from covey.learning.models.state import map_file, views
from covey.learning.task import NodeData, Split, Task, last_layer_split
from covey.metrics import counted
from covey.parts import brought, collected, sent, slot
from covey.spec import RunSpec, parse_data
from covey.worker.execute.coordinator_ops import describe, initial
from covey.worker.execute.node_ops import evaluate, train
from covey.worker.execute.step_op import step
from covey.worker.jobs.evaluation import EvaluateJob
from covey.worker.jobs.runs import DescribeJob, InitialJob
from covey.worker.jobs.steps import StepAnswer, StepJob, StepResult
from covey.worker.jobs.training import TrainJob, TrainLimits, TrainResult
from covey.worker.program.host import Host

FEATURES, EXAMPLES = 8, 96
CONSENT = TrainLimits(label_counts="exact", representations=True, min_k=1)
"""An operator's who allows all that a method may ask for."""


class NormedExample(Task):
    """Eight features, two classes, and a model with batch normalization."""

    def model(self) -> nn.Module:
        """Two layers; the normalized one has float and integer buffers."""
        return nn.Sequential(nn.Linear(FEATURES, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))

    def split(self, model: nn.Module) -> Split | None:
        """The last layer predicts."""
        return last_layer_split(model)

    def view(self, batch: Any, generator: torch.Generator) -> Any:
        """With a little noise."""
        x, y = batch
        return x + 0.1 * torch.randn(x.shape, generator=generator), y

    def table(self, dataset: Dataset[Any]) -> Mapping[str, Any]:
        """The first feature."""
        return {"first": [float(x[0]) for x, _ in dataset]}  # type: ignore[attr-defined]

    def train_data(self, data: NodeData) -> TensorDataset:
        """The same on all nodes, which take parts of it."""
        return examples(EXAMPLES, 1)

    def eval_data(self, data: NodeData) -> TensorDataset:
        """The same on all nodes."""
        return examples(20, 2)

    def central_data(self) -> TensorDataset:
        """The same as on the nodes."""
        return examples(20, 2)

    def common_data(self) -> TensorDataset:
        """Further examples."""
        return examples(20, 3)


class PlainExample(NormedExample):
    """The same data, and a model without buffers."""

    def model(self) -> nn.Module:
        """Two layers."""
        return nn.Sequential(nn.Linear(FEATURES, 6), nn.ReLU(), nn.Linear(6, 2))


def examples(count: int, seed: int) -> TensorDataset:
    """So many made-up examples."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, FEATURES, generator=generator)
    return TensorDataset(x, (x.sum(1) > 0).long())


def spec_of(method: str, options: Mapping[str, Any] | None = None, **sections: Any) -> RunSpec:
    """A small run of a method, with the task `NormedExample`.

    Args:
        method: Its name.
        options: Its options.
        **sections: Further sections of the specification, in place of what is here.
    """
    fields: dict[str, Any] = {
        "name": "method",
        "seed": 5,
        "task": {"name": f"{__name__}:NormedExample"},
        "training": {"learning_rate": 0.1, "batch_size": 8, "local_epochs": 1},
        "method": {"name": method, "options": dict(options or {})},
        "rounds": {"count": 3},
    }
    return parse_data(fields | sections)


@dataclass
class NodeFiles:
    """What one node keeps: files by name."""

    accepted: dict[str, Path] = field(default_factory=dict)
    own: dict[str, Path] = field(default_factory=dict)

    @property
    def state(self) -> dict[str, Path]:
        """All of it."""
        return {**self.accepted, **self.own}


class MethodRounds:
    """One run, round after round.

    Args:
        spec: The run.
        folder: An empty folder for its files.
        nodes: How many nodes; they are named as a simulation names them.
        paths: Where the task finds the nodes' data.
        host: Takes the progress of trainings; default: nobody does.
    """

    def __init__(
        self,
        spec: RunSpec,
        folder: Path,
        nodes: int = 3,
        paths: Mapping[str, str] | None = None,
        host: Host | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.spec, self.names, self._folder, self._text = spec, [f"n{k}" for k in range(nodes)], folder, spec.to_json()
        self._host, self._paths = host or Host(torch.device("cpu")), dict(paths or {})
        self.description = describe(DescribeJob(self._text, allow_path=True), self._host)
        self.model = folder / "version-0"
        first = initial(InitialJob("run", self._text, self.model, allow_path=True), self._host)
        self.layout, self.model_sha256 = Layout.from_json(first.layout), first.model_sha256
        self.version_state: dict[str, Path] = {}
        self.nodes = {name: NodeFiles() for name in self.names}
        self.members: dict[str, dict[str, Path]] = {}
        """The newest accepted file of each node, of the parts that are collected."""
        self.number = 0

    def tensors(self) -> dict[str, Tensor]:
        """The newest version's."""
        return {name: tensor.clone() for name, tensor in views(map_file(self.model, self.layout), self.layout).items()}

    def train(self, node: str, number: int = 1, attempt: str = "", **fields: Any) -> TrainResult:
        """One node's training in a round, from the newest version and from what the node keeps.

        Args:
            node: Its name.
            number: The round.
            attempt: In the names of the files that it writes.
            **fields: Of the job, in place of what is here.
        """
        prefix, description = f"{number}-{node}-{attempt}", self.description
        out = [part.name for part in description.parts if part.up is not None]
        names = [part.name for part in brought(description.parts)]
        job: dict[str, Any] = {
            "run": "run",
            "spec_json": self._text,
            "layout": self.layout.to_json(),
            "round": number,
            "roster_index": self.names.index(node),
            "num_partitions": len(self.names),
            "base": self.model,
            "scratch": {name: self._folder / f"{prefix}-{name}" for name in out},
            "allow_path": True,
            "limits": CONSENT,
            "node_paths": self._paths,
            "task_options": self.spec.task.nodes.get(node, {}),
            "inputs": {name: self.version_state[slot(name)] for name in names if slot(name) in self.version_state},
            "others": {
                part.name: {
                    source: path
                    for source, path in self.members[part.name].items()
                    if (source == node) == (part.audience == "own")
                }
                for part in collected(description.parts)
                if self.members.get(part.name)
            },
            "state": self.nodes[node].state,
            "out_state": {name: self._path(prefix, "state", name) for name in description.node_state},
        }
        return train(TrainJob(**{**job, **fields}), self._host)

    def round(self, invited: Sequence[str] | None = None, spoilt: Collection[str] = ()) -> StepResult:
        """One round: all invited nodes train, and their updates become the next version.

        Args:
            invited: Default: all.
            spoilt: Whose update is made unacceptable on its way: the first number of the first part that it sends
                becomes not-a-number.
        """
        self.number += 1
        results = {name: self.train(name, self.number) for name in invited or self.names}
        for name in spoilt:
            first = sent(self.description.parts)[0].name
            path = next(part.path for part in results[name].parts if part.name == first)
            with path.open("r+b") as file:
                file.write(b"\xff\xff\xff\xff")
        result = self._aggregated(results)
        for verdict in result.verdicts:
            kept = self.nodes[verdict.node]
            kept.own |= {file.name: file.path for file in results[verdict.node].own_state}
            if verdict.accepted:
                self._collect(verdict.node, results[verdict.node])
                kept.accepted |= {file.name: file.path for file in results[verdict.node].state}
        return result

    def evaluate(self, node: str) -> dict[str, float]:
        """The newest version's metrics on one node's evaluation data, with what it keeps."""
        job = EvaluateJob(
            "run",
            self._text,
            self.model,
            "node",
            self._paths,
            allow_path=True,
            layout=self.layout.to_json(),
            state=self.nodes[node].own,
            task_options=self.spec.task.nodes.get(node, {}),
        )
        metrics = counted(evaluate(job, self._host).metrics)
        return {name: total / count for name, (total, count) in metrics.items()}

    def _collect(self, node: str, result: TrainResult) -> None:
        names = {part.name for part in collected(self.description.parts)}
        for part in result.parts:
            if part.name in names:
                self.members[part.name] = dict(sorted({**self.members.get(part.name, {}), node: part.path}.items()))

    def _aggregated(self, results: Mapping[str, TrainResult]) -> StepResult:
        """All phases, until the method closes the round; its rejections on the way are among the verdicts."""
        phase, answers, rejected = 1, [self._answer(name, 1, results[name]) for name in results], dict[str, str]()
        while True:
            result = step(self._job(answers, phase), self._host)
            if result.opens is None:
                break
            phase, asked, rejected = result.opens.phase, result.opens.params, {**rejected, **result.opens.rejected}
            answers += [self._answer(name, phase, results[name]) for name in asked]
            answers = [replace(a, verdict="rejected") if a.node in rejected else a for a in answers]
        verdicts = {verdict.node: verdict for verdict in result.verdicts}
        verdicts |= {name: Verdict(name, "rejected", reason) for name, reason in rejected.items()}
        self.version_state = {file.name: file.path for file in result.state}
        self.model, self.model_sha256 = self._folder / f"version-{self.number}", result.model_sha256
        return replace(result, verdicts=tuple(verdicts[name] for name in results))

    def _answer(self, name: str, phase: int, result: TrainResult) -> StepAnswer:
        wanted = {part.name for part in sent(self.description.parts, phase)}
        paths = {part.name: part.path for part in result.parts if part.name in wanted}
        metrics = counted(result.metrics)
        total, count = metrics.get("loss", (0.0, 0.0))
        loss = total / count if count else None
        return StepAnswer(name, float(result.examples), paths, loss, phase=phase, metrics=metrics)

    def _job(self, answers: Sequence[StepAnswer], phase: int) -> StepJob:
        return StepJob(
            run="run",
            spec_json=self._text,
            layout=self.layout.to_json(),
            version=self.number - 1,
            models={self.number - 1: self.model},
            answers=tuple(answers),
            state=self.version_state,
            out=self._folder / f"version-{self.number}",
            out_state={name: self._path(f"{self.number}", "version", name) for name in self.description.slots},
            roster=tuple(self.names),
            allow_path=True,
            phase=phase,
        )

    def _path(self, prefix: str, kind: str, name: str) -> Path:
        return self._folder / f"{prefix}-{kind}-{name.replace('/', '-')}"
