"""What every step starts from: its job with the files opened. And what it may end with: the next version."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from covey import faults
from covey.aggregation.server_optimizers import ServerOptimizer
from covey.codecs.contract import Codec, CodecContext
from covey.errors import WorkerError
from covey.layout import Layout
from covey.learning.models.state import ModelFile
from covey.spec import parse_json
from covey.vectors import Vector
from covey.worker.execute.next_version import Step, StepFiles, make_version
from covey.worker.execute.updates.update_form import UpdateForm
from covey.worker.files.mapped import MappedModel
from covey.worker.jobs.files import WrittenFile
from covey.worker.jobs.steps import StepJob
from covey.worker.program.context import RunContext
from covey.worker.program.host import Host


class OpenStep:
    """One step of a run.

    Args:
        job: What is to be done.
        host: What it is done on.

    Attributes:
        number: Of the version that it may make, from 1; of the round, where there are rounds.
        base: The newest version.

    Raises:
        LayoutError: The newest version's file is not of the layout.
        WorkerError: It was not named.
    """

    def __init__(self, job: StepJob, host: Host) -> None:
        self.job, self.host = job, host
        self.spec, self.layout = parse_json(job.spec_json), Layout.from_json(job.layout)
        self.form, self.number = UpdateForm(self.spec, self.layout, lambda: self.run.task), job.version + 1
        self.base = self._open(job.version)

    @property
    def run(self) -> RunContext:
        """The run with its task, on this machine."""
        job = self.job
        return self.host.contexts.get(
            job.run, job.spec_json, allow_path=job.allow_path, paths=job.data_paths, options={}
        )

    def model(self, version: int) -> MappedModel:
        """A model version. Raises `WorkerError`: it was not named."""
        return self.base if version == self.job.version else self._open(version)

    def _open(self, version: int) -> MappedModel:
        if version not in self.job.models:
            raise WorkerError(f"no file was named for version {version}, which is needed")
        return MappedModel(self.job.models[version], self.layout)

    def make(
        self,
        direction: Vector,
        buffers: Tensor,
        optimizer: ServerOptimizer,
        kept: Mapping[str, Vector] | None = None,
        change: tuple[Codec, CodecContext] | None = None,
    ) -> tuple[ModelFile, tuple[WrittenFile, ...]]:
        """Write the next version with its state files, synced; the arguments are fields of `Step`."""
        sign = -1.0 if self.spec.exchange.payload == "gradient" else 1.0
        step = Step(self.number, direction, sign, buffers, optimizer, kept or {}, change)
        files = StepFiles(self.job.state, self.job.out, self.job.out_state)
        return make_version(files, self.layout, self.base, step, self._each_block)

    def _each_block(self) -> None:
        faults.reach("aggregate-block")
        self.host.check_cancelled()
