"""From a node's vector to what it sends: the run's stages (`covey.outgoing`), put together here, and the codec.

What a node keeps from one update to the next comes from its last *accepted* update and is written to new files, which
count only once this update is accepted too. So a rejected or lost update changes nothing.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from covey.artifact import Artifact
from covey.codecs.contract import Codec, CodecContext
from covey.errors import WorkerError
from covey.layout import Layout
from covey.outgoing.contract import LocalState, Stage, send
from covey.outgoing.error_feedback import RESIDUAL, ErrorFeedback
from covey.outgoing.momentum import MOMENTUM, WorkerMomentum
from covey.seeds import derive_seed
from covey.spec import RunSpec
from covey.vectors import TensorVector, Vector
from covey.worker.execute.from_spec import uses_feedback
from covey.worker.files.mapped import map_bytes, map_float32
from covey.worker.files.updates import write_raw, write_vector
from covey.worker.jobs.files import WrittenFile
from covey.worker.jobs.training import TrainJob

LOCAL_STATE = (RESIDUAL, MOMENTUM)
"""All that stages may keep on a node, in the order in which a run names it."""


def stages_of(
    spec: RunSpec, codec: Codec, *, copies: Sequence[Stage] = (), attack: Stage | None = None
) -> tuple[Stage, ...]:
    """What an update of a run passes before the codec, in order.

    Args:
        spec: The run's.
        codec: The run's.
        copies: In a drill: shows others what the node would honestly send.
        attack: Of a drill node: an adversary keeps no account of what its codec loses.
    """
    momentum = [WorkerMomentum(spec.exchange.worker_momentum)] if spec.exchange.worker_momentum else []
    feedback = [ErrorFeedback()] if attack is None and uses_feedback(spec.exchange, codec) else []
    return (*momentum, *copies, *([] if attack is None else [attack]), *feedback)


def node_state(spec: RunSpec, codec: Codec) -> tuple[str, ...]:
    """Which of `LOCAL_STATE` a run's nodes keep."""
    kept = {name for stage in stages_of(spec, codec) for name in stage.keeps}
    return tuple(name for name in LOCAL_STATE if name in kept)


class StateFiles(LocalState):
    """What a node keeps, in the files that its job names.

    Args:
        job: The job.
        d: The length of the vectors.
    """

    def __init__(self, job: TrainJob, d: int) -> None:
        self._job, self._d = job, d
        self.written: list[WrittenFile] = []

    @override
    def before(self, name: str) -> Vector | None:
        path = self._job.state.get(name)
        return None if path is None else TensorVector(map_float32(path, self._d))

    @override
    def keep(self, name: str, vector: Vector) -> Vector:
        path = self._job.out_state.get(name)
        if path is None:
            raise WorkerError(f"no file was named for the node's state {name!r}")
        self.written.append(WrittenFile(name, path, write_raw(path, vector)))
        return TensorVector(map_float32(path, self._d))


def write_update(
    spec: RunSpec,
    codec: Codec,
    job: TrainJob,
    layout: Layout,
    source: Vector,
    path: Path,
    check_cancelled: Callable[[], object],
    *,
    hashed: bool = True,
) -> tuple[Artifact, tuple[WrittenFile, ...]]:
    """Write the part of an update that is under the rule, not synced, and the node's state that goes with it, synced.

    Args:
        spec: The run's.
        codec: The run's.
        job: Names the files of state.
        layout: Of the part.
        source: The node's own vector.
        path: Where to write the part.
        check_cancelled: Raises if the job was given up; a drill node that waits for others asks it.
        hashed: As for `ArtifactWriter`.

    Raises:
        TaskError: A value is not finite.
        WorkerError: No file was named for the state.
    """
    artifacts: list[Artifact] = []
    context, state = coding(spec, job, layout, codec), StateFiles(job, source.d)
    send(
        source,
        stages_of(spec, codec, **_drill(spec, job, check_cancelled)),
        state,
        encode=lambda vector: artifacts.append(write_vector(path, codec, vector, context, synced=False, hashed=hashed)),
        decoded=lambda: codec.reader(map_bytes(path), source.d, layout),
    )
    return artifacts[0], tuple(state.written)


def _drill(spec: RunSpec, job: TrainJob, check_cancelled: Callable[[], object]) -> dict[str, Any]:
    """The stages of a drill, by argument of `stages_of`; the code for them is read only where there is one."""
    if job.attack is None and job.honest is None:
        return {}
    from covey.worker.execute.updates.adversary import Attacked, HonestCopy

    attack = None if job.attack is None else Attacked(job.attack, spec, job, check_cancelled)
    return {"copies": [] if job.honest is None else [HonestCopy(job.honest)], "attack": attack}


def coding(spec: RunSpec, job: TrainJob, layout: Layout, codec: Codec) -> CodecContext:
    """What the codec may know; its randomness is a fresh secret where it protects the data."""
    seed = derive_seed(spec.seed, "codec", job.round, job.roster_index)
    return CodecContext(
        seed=secrets.randbits(256) if codec.private else seed,
        round=job.round,
        rounds=spec.rounds_in_all,
        layout=layout,
        broadcast=base64.b64decode(job.broadcast),
    )
