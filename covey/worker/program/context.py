"""What the worker holds warm for a run between its rounds: task, model, layout and data."""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import structlog
import torch
from pydantic import JsonValue
from torch import Tensor, nn
from torch.utils.data import Dataset

from covey.errors import LayoutError, SpecError
from covey.gossip.protocols.runs import protocol_of
from covey.layout import Layout, TensorSpec
from covey.learning.data import held_on
from covey.learning.models.entries import check_values, unwrapped
from covey.learning.models.sharing import Sharing, matching, sharing_of
from covey.learning.models.state import layout_of, tensors_of
from covey.learning.models.transient import TransientState
from covey.learning.partition import part_of, partition_in
from covey.learning.returns import data_of, method_of, model_of
from covey.learning.streams import in_memory
from covey.learning.task import NodeData, Task, central_data_of, load_task, task_errors
from covey.learning.training.seeding import seed_torch
from covey.methods.contract import METHODS, Method, Part, RunForm, parts_of
from covey.parts import LOCAL, LOCAL_ALONE, slot
from covey.seeds import derive_seed
from covey.spec import GossipSpec, RunSpec, parse_json
from covey.user_code.digest import code_digest, forget_edited
from covey.worker.program.evaluation_only import method_of_run
from covey.worker.program.local_tensors import LocalTensors
from covey.worker.program.process_settings import KEPT

log = structlog.get_logger(room="worker")
MAX_RUNS = 2
"""A run and its successor; more would only hold memory."""
MAX_VARIANTS = 8
"""Of runs whose nodes have options of their own, a process that trains for many virtual nodes holds so many models."""
NOTHING: Mapping[str, JsonValue] = MappingProxyType({})
MAX_PARTS = 10_000
"""A node has one part of the data; a process that trains for many virtual nodes has theirs."""


@dataclass(frozen=True)
class Form:
    """What a run's model consists of: the tensors that are shared, and what becomes of the others."""

    layout: Layout
    """Of those that are shared."""
    local: Layout
    frozen: Layout
    sharing: Sharing


class RunContext:
    """One run on this machine; everything is made when it is first needed.

    Args:
        spec_json: The specification.
        device: Where to compute.
        paths: Where the task finds its data.
        options: What the task is told of this node.
        allow_path: Whether the task may be named by import path.
        task_options: Options of the task that are one node's own (`[task.nodes.NODE]`).
        later: As in `covey.spec.parse_toml`.
    """

    def __init__(
        self,
        spec_json: str,
        device: torch.device,
        *,
        paths: Mapping[str, str],
        options: Mapping[str, JsonValue],
        allow_path: bool,
        task_options: Mapping[str, JsonValue] = NOTHING,
        later: bool = False,
    ) -> None:
        if edited := forget_edited():
            log.info("edited modules are imported anew", modules=sorted(edited))
        self.spec: RunSpec = parse_json(spec_json, later=later)
        self.device = device
        self._allow_path, self._section = allow_path, self.spec.task.with_own(task_options)
        self._data = NodeData(paths, options)
        self._indices: dict[tuple[int, int], Tensor] = {}
        self._accepted = ""
        """The layout as it came last, and was accepted."""

    @cached_property
    def task(self) -> Task:
        """The run's task."""
        task = load_task(self._section, allow_path=self._allow_path)
        KEPT.keep()
        return task

    @cached_property
    def code(self) -> str:
        """SHA-256 (hex) of the task's code as it is in memory."""
        return code_digest(type(self.task))

    @cached_property
    def method(self) -> Method:
        """The run's method; in gossip that of its protocol, where that has one.

        Raises:
            SpecError: The protocol's method needs a coordinator.
        """
        if not isinstance(self.spec, GossipSpec):
            return method_of_run(self.spec)
        return method_among_peers(self.spec, allow_path=self._allow_path)

    @property
    def own_models(self) -> bool:
        """Whether nodes among themselves keep models of their own, which may be different ones."""
        return (
            isinstance(self.spec, GossipSpec) and protocol_of(self.spec.gossip, allow_path=self._allow_path).own_models
        )

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The run's parts."""
        return parts_of(self.method, RunForm(self.spec, self.layout, lambda: self.task))

    @cached_property
    def model(self) -> nn.Module:
        """The task's model; its first values come from the run's seed only. It is reused by every round."""
        model, frozen = self._new_model()
        self._transient = TransientState(model)
        self._sharing = self._sharing_of(model, frozen)
        for name, parameter in unwrapped(model).named_parameters():
            if name in self._sharing.frozen:
                parameter.requires_grad_(False)
        return model

    def _new_model(self) -> tuple[nn.Module, frozenset[str]]:
        """As the seed gives it, and what the method freezes of it."""
        seed_torch(derive_seed(self.spec.seed, "model"))
        with task_errors("Task.model"):
            model = model_of(self.task.model(), method_of(self.task, "model"))
        return model, self.method.adapt(self.task, model)

    def first_model(self) -> nn.Module:
        """The model with the values that the run's seed gives it, whatever was loaded since."""
        model, first = self.fresh_model(), tensors_of(self._new_model()[0])
        with torch.no_grad():
            for name, tensor in tensors_of(model).items():
                tensor.copy_(first[name])
        return model

    def _sharing_of(self, model: nn.Module, frozen: frozenset[str]) -> Sharing:
        local = self.method.local(model) | matching(model, self.task.stays)
        return sharing_of(self.spec.exchange, model, local, frozen)

    def fresh_model(self) -> nn.Module:
        """The model for a new piece of work: what no model file holds is as it was made; the rest is to be loaded."""
        model = self.model
        self._transient.restore()
        self.frozen.load_into(model, None)
        return model

    def check_model(self) -> None:
        """Refuse a model that cannot be exchanged, or that nothing could be trained of.

        Raises:
            LayoutError: The message names the tensor.
        """
        _ = self.layout
        check_values(self.model, own_fit=self.task.own_fit)

    @cached_property
    def layout(self) -> Layout:
        """The layout of the task's own model as it is exchanged."""
        shared = self.frozen.without(self.local.without(layout_of(self.model)))
        return replace(shared, frozen=self.frozen.digest())

    @cached_property
    def local(self) -> LocalTensors:
        """What of the model stays on each node."""
        model = self.model
        return LocalTensors(model, self._sharing.local)

    @property
    def local_slot(self) -> str:
        """Under which name a node keeps that; empty: nothing is trained, so nothing is kept."""
        recipe = self.method.recipe(1)
        if recipe is not None and not recipe.trains:
            return ""
        return slot(LOCAL if self.method.global_model or self.spec.evaluation.only else LOCAL_ALONE)

    def load_local(self, state_files: Mapping[str, Path]) -> None:
        """Load what stays on this node as it keeps it; the first values where it keeps none yet.

        Raises:
            LayoutError: The file has another size.
        """
        self.local.load_into(self.model, state_files.get(self.local_slot, state_files.get(slot(LOCAL))))

    @cached_property
    def frozen(self) -> LocalTensors:
        """What of the model keeps its first value."""
        model = self.model
        return LocalTensors(model, self._sharing.frozen)

    def form(self) -> Form:
        """The model's form, without making its values where its code allows that.

        Raises:
            SpecError: As `sharing_of`.
        """
        task = self.task  # before: what its import does to the process is kept
        with contextlib.suppress(Exception), torch.device("meta"):
            model = task.model()
            frozen = self.method.adapt(task, model)
            whole = layout_of(model)
            return _form(model, whole, self._sharing_of(model, frozen))
        return _form(self.model, layout_of(self.model), self._sharing)

    def variant(self, task_options: Mapping[str, JsonValue]) -> RunContext:
        """The run as a node has it whose task has such options of its own."""
        return RunContext(
            self.spec.to_json(),
            self.device,
            paths=self._data.paths,
            options=self._data.options,
            allow_path=self._allow_path,
            task_options=task_options,
            later=True,
        )

    @cached_property
    def train_data(self) -> Dataset[Any]:
        """The node's training examples, on the device where that is possible."""
        with task_errors("Task.train_data"):
            dataset = data_of(self.task.train_data(self._data), method_of(self.task, "train_data"))
            return held_on(in_memory(dataset), self.device)

    @cached_property
    def eval_data(self) -> Dataset[Any] | None:
        """The node's evaluation examples."""
        with task_errors("Task.eval_data"):
            return self._held(self.task.eval_data(self._data), "eval_data")

    @cached_property
    def central_data(self) -> Dataset[Any] | None:
        """The coordinator's evaluation examples."""
        with task_errors("Task.central_data"):
            return self._held(central_data_of(self.task, self._data), "central_data")

    @cached_property
    def common_data(self) -> Dataset[Any] | None:
        """The examples that all nodes have."""
        with task_errors("Task.common_data"):
            return self._held(self.task.common_data(), "common_data")

    def _held(self, dataset: Dataset[Any] | None, method: str) -> Dataset[Any] | None:
        if dataset is None:
            return None
        return held_on(in_memory(data_of(dataset, method_of(self.task, method))), self.device)

    def indices(self, part: int, parts: int) -> Tensor:
        """This node's part of the training examples: int64 `[n]`.

        Raises:
            SpecError: The data cannot be cut so.
        """
        if partition_in(self.spec.data).whole:
            part, parts = 0, 1  # every part is everything
        if (part, parts) not in self._indices:
            own_part = part_of(self.task, self.train_data, self.spec.data, part, parts, self.spec.seed)
            if len(self._indices) >= MAX_PARTS:
                self._indices.clear()
            self._indices[part, parts] = own_part
        return self._indices[part, parts]

    def require_layout(self, text: str) -> Layout:
        """The run's layout, from its canonical JSON.

        Raises:
            LayoutError: The task's own model has another one; the message names the first difference.
        """
        if text == self._accepted:
            return self.layout
        layout = Layout.from_json(text)
        if set(layout.tensors) != set(self.layout.tensors):
            first = difference(self.layout, layout)
            raise LayoutError(
                f"the model of task {self.spec.task.name!r} here is not the run's: {first}; "
                "install the same version of the task as the coordinator has"
            )
        if layout.frozen != self.layout.frozen:
            raise LayoutError(
                f"the frozen tensors of task {self.spec.task.name!r} have other values here than in the run; install "
                "the same versions of the task, of torch, and of what it loads them from, as the coordinator has"
            )
        self.layout = layout  # the same tensors, in the run's order
        vars(self).pop("parts", None)
        self._accepted = text
        return layout


def _form(model: nn.Module, whole: Layout, sharing: Sharing) -> Form:
    local, frozen = LocalTensors(model, sharing.local), LocalTensors(model, sharing.frozen)
    return Form(frozen.without(local.without(whole)), local.layout, frozen.layout, sharing)


def difference(own: Layout, run: Layout) -> str:
    """What the first tensor is of which only one has such a one."""
    mine = _beyond(own, run)
    theirs = _beyond(run, own)
    if not mine or not theirs:
        return f"{_named((mine or theirs)[0])} is {'here' if mine else 'in the run'} only"
    return f"here {_named(mine[0])}, in the run {_named(theirs[0])}"


def _named(tensor: TensorSpec) -> str:
    return f"{tensor.part} tensor {tensor.name!r} {tensor.dtype} {list(tensor.shape)}"


def _beyond(layout: Layout, other: Layout) -> list[TensorSpec]:
    known = set(other.tensors)
    return [tensor for tensor in layout.tensors if tensor not in known]


def method_among_peers(spec: GossipSpec, *, allow_path: bool = False) -> Method:
    """What nodes of a gossip run train by: their protocol's method, or plain training.

    Raises:
        PluginError: It is not installed here.
        SpecError: Its options are wrong, or it needs a coordinator.
    """
    section = protocol_of(spec.gossip, allow_path=allow_path).method() or spec.method
    method = METHODS.make(section.name, section.options)
    if section is spec.method:
        return method
    among_peers = method.among_peers(spec.gossip.overlap)
    if among_peers is None:
        raise SpecError(f"gossip.protocol.name: method {section.name!r}, which it names, needs a coordinator")
    return among_peers


class Contexts:
    """The runs held warm: the most recently used few."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._runs: OrderedDict[tuple[str, str], tuple[object, RunContext]] = OrderedDict()

    def get(
        self,
        run: str,
        spec_json: str,
        *,
        allow_path: bool,
        paths: Mapping[str, str],
        options: Mapping[str, JsonValue],
        task_options: Mapping[str, JsonValue] = NOTHING,
    ) -> RunContext:
        """The context of a run with these options of one node's own, kept from before if nothing about it changed."""
        key, name = (spec_json, allow_path, dict(paths), dict(options)), (run, json.dumps(dict(task_options)))
        known = self._runs.get(name)
        if known is None or known[0] != key:
            context = RunContext(
                spec_json, self.device, paths=paths, options=options, allow_path=allow_path, task_options=task_options
            )
            self._runs[name] = (key, context)
        self._runs.move_to_end(name)
        while len(self._runs) > (MAX_VARIANTS if task_options else MAX_RUNS):
            self._runs.popitem(last=False)
        return self._runs[name][1]
