"""How the updates of a run are read: by the parts that its method declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from covey.errors import LayoutError
from covey.layout import Layout
from covey.learning.task import Task
from covey.methods.contract import Part, RunForm, parts_of
from covey.parts import COLLECT, MEAN, RULE, slot
from covey.spec import RunSpec
from covey.vectors import ComputedVector, Vector
from covey.worker.execute.from_spec import load_codec
from covey.worker.files.mapped import MappedModel, map_bytes, map_flat
from covey.worker.program.evaluation_only import method_of_run


class Difference(ComputedVector):
    """Parameters as they were sent, read as deltas from the base."""

    def __init__(self, sent: Vector, base: MappedModel) -> None:
        super().__init__(sent.d)
        self._sent, self._base = sent, base

    def decode(self, columns: slice, out: Tensor) -> None:
        """Sent minus base."""
        torch.sub(self._sent.read(columns), self._base.read(columns), out=out)


class UpdateForm:
    """The form of a run's updates.

    Args:
        spec: The run's.
        layout: The run's.
        task: Gives its task.

    Attributes:
        run: All of it.
        method: The run's.
        codec: The run's.
        parts: What the method declares.
    """

    def __init__(self, spec: RunSpec, layout: Layout, task: Callable[[], Task]) -> None:
        self.run, self.codec = RunForm(spec, layout, task), load_codec(spec.exchange)
        self.method = method_of_run(spec)
        self.parts = parts_of(self.method, self.run)

    @cached_property
    def rule(self) -> Part:
        """The part that is combined by the run's rule."""
        return next(part for part in self.parts if part.combine == RULE)

    @property
    def has_rule(self) -> bool:
        """Whether there is such a part."""
        return self.method.global_model

    @cached_property
    def sent(self) -> tuple[Part, ...]:
        """The parts that a node sends."""
        return tuple(part for part in self.parts if part.up is not None)

    @cached_property
    def tensors(self) -> tuple[Part, ...]:
        """Those of them that are combined by mean or median."""
        return tuple(part for part in self.sent if part.combine == MEAN)

    @cached_property
    def buffers(self) -> Part | None:
        """The one of these whose tensors are the model's own, if there is one."""
        return next((part for part in self.tensors if part.in_model), None)

    @cached_property
    def kept(self) -> tuple[Part, ...]:
        """The parts of which the method makes what each version keeps as a file of its own."""
        return tuple(p for p in self.parts if "version" in p.keep and not p.in_model and p.combine != COLLECT)

    def vector(self, files: Mapping[str, Path], base: MappedModel) -> Vector:
        """An update's vector, as something to be added to the base (or, where nodes send gradients, taken from it).

        Raises:
            LayoutError: The file is not of the codec's form, or too short.
            LimitExceeded: It is too long.
        """
        vector = self.codec.reader(map_bytes(files[self.rule.name]), base.d, self.rule.layout)
        return Difference(vector, base) if self.run.spec.exchange.payload == "parameters" else vector

    def raw(self, part: Part, files: Mapping[str, Path]) -> Tensor:
        """The raw values of a part of an update: uint8 `[part.layout.nbytes]`.

        Raises:
            LayoutError: The file has another size.
        """
        expected, size = layout_of(part).nbytes, files[part.name].stat().st_size
        if size != expected:
            raise LayoutError(f"{size} bytes of {part.name} instead of {expected}")
        if not size:
            return torch.empty(0, dtype=torch.uint8)
        return torch.from_file(str(files[part.name]), shared=False, size=size, dtype=torch.uint8)

    def state(self, files: Mapping[str, Path]) -> dict[str, Tensor]:
        """What was kept with a version, by part, of its files by slot.

        Raises:
            LayoutError: A file has another size than its part.
        """
        known = [part for part in self.kept if slot(part.name) in files]
        return {part.name: map_flat(files[slot(part.name)], layout_of(part)) for part in known}


def layout_of(part: Part) -> Layout:
    """A part's layout; `checked_parts` sees to it that what is sent or kept has one."""
    if part.layout is None:
        raise LayoutError(f"part {part.name!r} has no layout")
    return part.layout
