"""From a finished local training to the parts that a node sends, and to what it keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from covey.codecs.contract import Codec
from covey.errors import TaskError, WorkerError
from covey.layout import Layout
from covey.learning.models.state import tensors_of
from covey.learning.recipe import RecipeInputs
from covey.learning.task import FitResult
from covey.methods.contract import Part
from covey.outgoing.filters import Leaving
from covey.parts import RULE, slot
from covey.spec import GossipSpec
from covey.worker.execute.updates.encode_update import write_update
from covey.worker.execute.updates.filtered import Filters
from covey.worker.execute.updates.from_peers import FromPeers
from covey.worker.files.mapped import MappedModel, map_flat
from covey.worker.files.updates import ModelVector, write_bytes, write_flat, write_tensors
from covey.worker.jobs.files import WrittenFile
from covey.worker.jobs.training import TrainJob
from covey.worker.program.context import RunContext


@dataclass(frozen=True)
class WrittenParts:
    """What was written; see `TrainResult`."""

    parts: tuple[WrittenFile, ...]
    state: tuple[WrittenFile, ...]
    own_state: tuple[WrittenFile, ...]


class NodeFiles(Mapping[str, Tensor]):
    """A part as other nodes sent it, by node: a flat vector, mapped when it is looked up.

    Args:
        part: The part.
        paths: Its files, by node.
    """

    def __init__(self, part: Part, paths: Mapping[str, Path]) -> None:
        self._part, self._paths = part, paths

    def __getitem__(self, node: str) -> Tensor:
        return _flat(self._part, self._paths[node])

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


class PartsWriter:
    """The files of one training: those that the recipe gets, and those that come out.

    Args:
        context: The run.
        job: Names the files.
        codec: The run's.

    Attributes:
        filters: What each part passes.
    """

    def __init__(self, context: RunContext, job: TrainJob, codec: Codec) -> None:
        self._context, self._job, self._codec = context, job, codec
        self._parts = context.parts
        self.filters = Filters(job.filters, codec)
        self._of_model = Filters((), codec) if self._keeps_model() else self.filters
        self._state: list[WrittenFile] = []
        self._own_state: list[WrittenFile] = []

    def inputs(self) -> RecipeInputs:
        """What came down beside the model, and what the node keeps of the method.

        Raises:
            LayoutError: A file has another size than its part.
        """
        job = self._job
        down = {part.name: _flat(part, job.inputs[part.name]) for part in self._parts if part.name in job.inputs}
        kept = {
            part.name: _flat(part, job.state[slot(part.name)]) for part in self._parts if slot(part.name) in job.state
        }
        common, limits = lambda: self._context.common_data, job.limits
        others, layout = self._others(), self._context.layout
        return RecipeInputs(layout, down, kept, others, common, limits.min_k, limits.label_counts)

    @property
    def _from_peers(self) -> FromPeers | None:
        spec = self._context.spec
        if not isinstance(spec, GossipSpec):
            return None
        return FromPeers.of(self._context.layout, self._parts, spec.gossip.overlap)

    def _keeps_model(self) -> bool:
        """Whether nodes among themselves send something else in the place of their models, which then stay."""
        return (peers := self._from_peers) is not None and not peers.has_models

    def _others(self) -> Mapping[str, Mapping[str, Tensor]]:
        job = self._job
        if isinstance(self._context.spec, GossipSpec):
            return peers.others(job.collected, job.round) if (peers := self._from_peers) is not None else {}
        return {part.name: NodeFiles(part, job.others[part.name]) for part in self._parts if part.name in job.others}

    def write(
        self,
        gradients: Mapping[str, Tensor] | None,
        fit: FitResult,
        inputs: RecipeInputs,
        check_cancelled: Callable[[], object],
    ) -> WrittenParts:
        """Write all of it.

        Args:
            gradients: What is sent in place of the trained parameters, by tensor; None: the parameters.
            fit: The training's result.
            inputs: As the recipe left them.
            check_cancelled: As `write_update` needs it.

        Raises:
            TaskError: A value is not finite, or the recipe did not make what its method declares.
            WorkerError: No file was named for something.
        """
        parts = [
            self._written(part, gradients, fit, check_cancelled)
            for part in self._parts
            if part.up is not None and part.up >= self._job.phase
        ]
        for part in self._parts:
            self._keep(part, inputs.state)
        if self._context.local.names and (name := self._context.local_slot):
            path = _out(self._job.out_state, name)
            self._own_state.append(WrittenFile(name, path, self._context.local.write(self._context.model, path)))
        return WrittenParts(tuple(parts), tuple(self._state), tuple(self._own_state))

    def _written(
        self, part: Part, gradients: Mapping[str, Tensor] | None, fit: FitResult, check_cancelled: Callable[[], object]
    ) -> WrittenFile:
        path = _out(self._job.scratch, part.name)
        filters = self._of_model if part.combine == RULE or part.in_model else self.filters
        spec = self._context.spec
        leaving = Leaving(spec.name, self._job.round, part.name, spec.exchange.payload, fit.examples)
        # The daemon knows which of them have to survive a power cut, and syncs those.
        if part.layout is None:
            content = filters.content(_bytes_of(fit.parts, part), leaving, part.max_bytes)
            return WrittenFile(part.name, path, write_bytes(path, content, synced=False), part.codec)
        layout = part.layout
        if part.combine == RULE:
            vector = filters.vector(self._vector(layout, gradients), layout.part("model"), leaving)
            hashed = not isinstance(spec, GossipSpec)  # else the node's next job takes it in, and nobody else
            artifact, kept = write_update(
                spec, self._codec, self._job, layout, vector, path, check_cancelled, hashed=hashed
            )
            self._state.extend(kept)
        elif part.in_model:
            before = MappedModel(self._job.base, self._context.layout).buffers
            own = tensors_of(self._context.model)
            passed = filters.of_part({tensor.name: own[tensor.name] for tensor in layout.tensors}, leaving)
            artifact = write_tensors(path, layout, passed, before, synced=False)
        else:
            artifact = write_flat(path, layout, filters.flat(_made(fit.parts, part), layout, leaving), synced=False)
        return WrittenFile(part.name, path, artifact, part.codec, layout.sha256)

    def _vector(self, layout: Layout, gradients: Mapping[str, Tensor] | None) -> ModelVector:
        whole = self._context.layout
        base = MappedModel(self._job.base, whole) if self._context.spec.exchange.payload == "delta" else None
        return ModelVector(layout, tensors_of(self._context.model) if gradients is None else gradients, base)

    def _keep(self, part: Part, state: Mapping[str, Tensor]) -> None:
        name = slot(part.name)
        for files, when in ((self._state, "node-accepted"), (self._own_state, "node-always")):
            if when in part.keep:
                path = _out(self._job.out_state, name)
                files.append(WrittenFile(name, path, write_flat(path, _layout(part), _made(state, part))))


def _flat(part: Part, path: Path) -> Tensor:
    return map_flat(path, _layout(part))


def _made(vectors: Mapping[str, Tensor] | Mapping[str, Tensor | bytes], part: Part) -> Tensor:
    vector = vectors.get(part.name)
    if not isinstance(vector, Tensor):
        raise TaskError(f"the method's recipe left no vector for part {part.name!r}, which the method declares")
    return vector


def _bytes_of(values: Mapping[str, Tensor | bytes], part: Part) -> bytes:
    content = values.get(part.name)
    if not isinstance(content, bytes) or len(content) > part.max_bytes:
        raise TaskError(f"the method's recipe left no bytes, or more than {part.max_bytes}, for part {part.name!r}")
    return content


def _layout(part: Part) -> Layout:
    if part.layout is None:
        raise WorkerError(f"part {part.name!r} has no layout, which this version cannot read or write")
    return part.layout


def _out(paths: Mapping[str, Path], name: str) -> Path:
    if name not in paths:
        raise WorkerError(f"no file was named for {name!r}")
    return paths[name]
