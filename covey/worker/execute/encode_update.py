"""From a node's vector to what it sends: worker momentum, error feedback, the codec; on a drill node the attack.

What a node keeps from one update to the next (`jobs.training.NODE_STATE`) comes from its last *accepted* update and is
written to new files, which count only once this update is accepted too. So a rejected or lost update changes nothing.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from pathlib import Path

from covey.artifact import Artifact
from covey.codecs.contract import Codec, CodecContext
from covey.errors import WorkerError
from covey.layout import Layout
from covey.seeds import derive_seed
from covey.spec import RunSpec
from covey.vectors import LinearCombination, TensorVector, Vector
from covey.worker.execute.from_spec import uses_feedback
from covey.worker.files.mapped import map_bytes, map_float32
from covey.worker.files.updates import write_raw, write_vector
from covey.worker.jobs.files import WrittenFile
from covey.worker.jobs.training import NODE_STATE, TrainJob

RESIDUAL, MOMENTUM = NODE_STATE


def node_state(spec: RunSpec, codec: Codec) -> tuple[str, ...]:
    """Which of `NODE_STATE` a run's nodes keep."""
    used = {RESIDUAL: uses_feedback(spec.exchange, codec), MOMENTUM: spec.exchange.worker_momentum > 0}
    return tuple(name for name in NODE_STATE if used[name])


def write_update(
    spec: RunSpec,
    codec: Codec,
    job: TrainJob,
    layout: Layout,
    source: Vector,
    path: Path,
    check_cancelled: Callable[[], object],
) -> tuple[Artifact, tuple[WrittenFile, ...]]:
    """Write the part of an update that is under the rule, and the node's state that goes with it.

    Args:
        spec: The run's.
        codec: The run's.
        job: Names the files of state.
        layout: Of the part.
        source: The node's own vector.
        path: Where to write the part.
        check_cancelled: Raises if the job was given up; a drill node that waits for others asks it.

    Raises:
        TaskError: A value is not finite.
        WorkerError: No file was named for the state.
    """
    kept = []
    if spec.exchange.worker_momentum:
        source, file = _with_momentum(spec, job, source)
        kept.append(file)
    if job.honest is not None:
        write_raw(job.honest, source)
    feedback = uses_feedback(spec.exchange, codec)
    if job.attack is not None:
        from covey.worker.execute.adversary import attacked

        source, feedback = attacked(job.attack, source, spec, job, check_cancelled), False
    if feedback:
        from covey.codecs.feedback import lost, with_residual

        source = with_residual(source, _old(job, RESIDUAL, source.d))
    artifact = write_vector(path, codec, source, coding(spec, job, layout, codec))
    if feedback:
        out = _out(job, RESIDUAL)
        residual = write_raw(out, lost(source, codec.reader(map_bytes(path), source.d, layout)))
        kept.append(WrittenFile(RESIDUAL, out, residual))
    return artifact, tuple(kept)


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


def _with_momentum(spec: RunSpec, job: TrainJob, source: Vector) -> tuple[Vector, WrittenFile]:
    out = _out(job, MOMENTUM)
    old = _old(job, MOMENTUM, source.d)
    beta = spec.exchange.worker_momentum
    terms = [(source, 1 - beta)] if old is None else [(source, 1 - beta), (old, beta)]
    artifact = write_raw(out, LinearCombination(terms))
    return TensorVector(map_float32(out, source.d)), WrittenFile(MOMENTUM, out, artifact)


def _old(job: TrainJob, name: str, d: int) -> Vector | None:
    return TensorVector(map_float32(job.state[name], d)) if name in job.state else None


def _out(job: TrainJob, name: str) -> Path:
    if name not in job.out_state:
        raise WorkerError(f"no file was named for the node's state {name!r}")
    return job.out_state[name]
