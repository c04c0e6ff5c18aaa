"""The worker's side of a drill: an adversary's vector in place of the honest one, and poisoned labels.

As a program (`python -m covey.worker.execute.updates.adversary`) it answers the operator's question whether an attack
can be started; the question is `{"name", "options"}`.
"""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset
from typing_extensions import override

from covey.aggregation.attacks import ATTACKS, Attack, AttackContext
from covey.aggregation.matrix import Row, UpdateMatrix
from covey.errors import CoveyError, TaskError
from covey.layout import Layout
from covey.learning.data import batches
from covey.learning.task import Task, collate_of, loss_of, task_errors
from covey.outgoing.contract import LocalState, Stage
from covey.spec import RunSpec
from covey.user_code.asking import respond
from covey.vectors import FunctionVector, TensorVector, Vector
from covey.worker.files.mapped import FLOAT32_BYTES, MappedModel, map_float32
from covey.worker.files.updates import write_raw
from covey.worker.jobs.training import AttackOrder, TrainJob

log = structlog.get_logger(room="worker")
POLL_S = 0.02
BASE = "base-model"
"""Among what is remembered: the model of the last round, for attacks that need its change."""


def _never() -> None:
    """Nobody cancels."""


def load_attack(order: AttackOrder) -> Attack:
    """The ordered attack.

    Raises:
        PluginError: Not installed here.
        SpecError: Its options are wrong.
    """
    return ATTACKS.make(order.name, order.options, allow_path=True)  # it is this machine's operator who orders it


class HonestCopy(Stage):
    """Shows the rest of a group what the node would honestly send.

    Args:
        path: Where to write it, raw float32.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @override
    def leave(self, vector: Vector, state: LocalState) -> Vector:
        write_raw(self._path, vector)
        return vector


class Attacked(Stage):
    """The attack takes the vector's place.

    Args:
        order: The attack.
        spec: The run's.
        job: The round's.
        check_cancelled: As for `attacked`.
    """

    def __init__(self, order: AttackOrder, spec: RunSpec, job: TrainJob, check_cancelled: Callable[[], object]) -> None:
        self._order, self._spec, self._job, self._check_cancelled = order, spec, job, check_cancelled

    @override
    def leave(self, vector: Vector, state: LocalState) -> Vector:
        return attacked(self._order, vector, self._spec, self._job, self._check_cancelled)


def attacked(
    order: AttackOrder, source: Vector, spec: RunSpec, job: TrainJob, check_cancelled: Callable[[], object] = _never
) -> Vector:
    """What a drill node sends in place of what it should.

    Args:
        order: The attack. The folder for its memory is made if missing.
        source: What it would honestly send, float32 `[d]`.
        spec: The run's.
        job: The round's.
        check_cancelled: Called while it waits for the group's files; what it raises ends the wait.

    Returns:
        float32 `[d]`; values need not be finite, and are not checked.

    Raises:
        PluginError: The attack is not installed here.
        SpecError: Its options are wrong.
        RunFailed: It knows too little.
    """
    attack = load_attack(order)
    log.warning("DRILL: this update is an attack", attack=order.name, run=job.run, round=job.round)
    memory = _memory(order.memory, job.round, source.d)
    change = _change(spec, job, source.d, memory) if attack.needs_change else None
    context = AttackContext(
        round=job.round,
        seed=spec.seed,
        node=job.roster_index,
        nodes=order.nodes or job.num_partitions,
        attackers=order.attackers,
        known=_known(order, source.d, check_cancelled),
        change=change,
        memory=memory,
    )
    remembered = dict(attack.remembered(source, context))
    if attack.needs_change:
        remembered[BASE] = _base(job, source.d)
    if order.memory is not None:
        _remember(order.memory, job.round, remembered)
    return attack.vector(source, context)


# -- what it knows ----------------------------------------------------------------------------------------------------


def _known(order: AttackOrder, d: int, check_cancelled: Callable[[], object]) -> UpdateMatrix | None:
    """The group's honest vectors in node-id order: those whose files are complete when time is up."""
    if not order.group:
        return None
    end = time.monotonic() + order.wait_s
    while (missing := [n for n, path in order.group.items() if not _complete(path, d)]) and time.monotonic() < end:
        check_cancelled()
        time.sleep(POLL_S)
    if missing:
        log.warning("DRILL: the attack makes do without some of its group", missing=missing, waited_s=order.wait_s)
    present = sorted(set(order.group) - set(missing))
    rows = [Row(node, 1 / len(present), TensorVector(map_float32(order.group[node], d))) for node in present]
    return UpdateMatrix(rows) if rows else None


def _complete(path: Path, d: int) -> bool:
    # Files are written from front to back: one of full length is whole.
    return path.is_file() and path.stat().st_size == d * FLOAT32_BYTES


def _change(spec: RunSpec, job: TrainJob, d: int, memory: Mapping[str, Tensor]) -> Vector | None:
    """The last round's change of the model, as nodes of this run would send it."""
    base, payload = _base(job, d), spec.exchange.payload
    if payload == "parameters":
        return base
    if BASE not in memory:
        return None
    before, sign = memory[BASE], -1 if payload == "gradient" else 1
    return FunctionVector(d, lambda columns: (base.read(columns) - before[columns]) * sign)


def _base(job: TrainJob, d: int) -> Vector:
    return FunctionVector(d, MappedModel(job.base, Layout.from_json(job.layout)).read)


# -- what it remembers: a folder for each round, of raw float32 files ------------------------------------------------


def _rounds(folder: Path) -> dict[int, Path]:
    return {int(path.name): path for path in folder.iterdir() if path.name.isdecimal()} if folder.is_dir() else {}


def _memory(folder: Path | None, now: int, d: int) -> Mapping[str, Tensor]:
    """What it remembered in the newest round before this one (which may be done twice)."""
    earlier = {k: path for k, path in _rounds(folder).items() if k < now} if folder is not None else {}
    if not earlier:
        return {}
    files = sorted(earlier[max(earlier)].iterdir())
    return {path.stem: map_float32(path, path.stat().st_size // FLOAT32_BYTES).clone() for path in files}


def _remember(folder: Path, now: int, vectors: Mapping[str, Vector]) -> None:
    fresh = folder / f"{now}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name, vector in vectors.items():
        write_raw(fresh / f"{name}.f32", vector)
    shutil.rmtree(folder / str(now), ignore_errors=True)
    fresh.rename(folder / str(now))
    for round in sorted(_rounds(folder))[:-2]:
        shutil.rmtree(folder / str(round))


# -- poisoned labels --------------------------------------------------------------------------------------------------


class FlippedLabels(Dataset[Any]):
    """A data set of (x, y) with y -> C - 1 - y; x and its order are untouched.

    Args:
        inner: Gives pairs whose second is an integer, or a tensor of integers.
        classes: C.
    """

    def __init__(self, inner: Dataset[Any], classes: int) -> None:
        self._inner, self._classes = inner, classes

    def __len__(self) -> int:
        return len(self._inner)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        x, y = self._inner[index]
        return x, self._classes - 1 - y


def poisons_labels(order: AttackOrder | None) -> bool:
    """Whether the node has to train on `flipped` data.

    Raises:
        PluginError: The attack is not installed here.
        SpecError: Its options are wrong.
    """
    return order is not None and load_attack(order).poisons_labels


def flipped(task: Task, model: nn.Module, dataset: Dataset[Any], device: torch.device) -> Dataset[Any]:
    """A data set with labels y -> C - 1 - y, for training only.

    C is the number of outputs that the task's loss gives for the first example. Only labels in the second tensor of a
    `TensorDataset`, or the second of a pair, are flipped; elementwise where a label is a tensor.

    Args:
        task: Gives the loss.
        model: Any values; on `device` afterwards, its buffers unchanged.
        dataset: The node's training examples.
        device: Where to compute.

    Raises:
        TaskError: The task does not classify, or its data are not pairs of inputs and integer labels.
    """
    classes = _classes(task, model, dataset, device)
    if type(dataset) is TensorDataset or (isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1):
        labels = dataset.tensors[1]
        if labels.is_floating_point():
            raise TaskError(f"label-flip needs integer labels; the task's are {labels.dtype}")
        poisoned: Any = copy.copy(dataset)
        poisoned.tensors = (dataset.tensors[0], classes - 1 - labels, *dataset.tensors[2:])
        return poisoned  # type: ignore[no-any-return]
    return FlippedLabels(dataset, classes)


def _classes(task: Task, model: nn.Module, dataset: Dataset[Any], device: torch.device) -> int:
    model.to(device).eval()
    with torch.no_grad(), task_errors("label-flip: Task.loss"):
        batch = next(batches(dataset, torch.zeros(1, dtype=torch.int64), 1, device, collate_of(task)))
        if not isinstance(batch, tuple) or len(batch) < 2:
            raise TaskError("label-flip needs batches (inputs, labels); the task has others")
        output = loss_of(task, model, batch)
    if output.logits is None or output.targets is None:
        raise TaskError("label-flip needs a task that classifies: its loss must give logits and targets")
    return output.logits.shape[1]


# -- before the start -------------------------------------------------------------------------------------------------


def described(wanted: dict[str, Any]) -> dict[str, Any]:
    """Whether an attack is installed with such options, and what it needs."""
    try:
        attack = load_attack(AttackOrder(wanted["name"], wanted["options"]))
    except CoveyError as error:
        return {"error": str(error), "omniscient": False}
    return {"error": "", "omniscient": attack.omniscient}


if __name__ == "__main__":
    respond(described)
