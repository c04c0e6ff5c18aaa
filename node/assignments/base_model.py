"""How a node comes by the model that it is to train: it has it, makes it from what it has, or downloads it.

A node that has the version before applies the committed change; the first version it makes from the run's seed. Either
way the file must come out with the announced digest, or it is downloaded whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from covey.artifact import Artifact
from covey.errors import CoveyError, PolicyError
from covey.layout import Layout
from covey.node.assignments.transfers import Transfers
from covey.spec import parse_json
from covey.wire.artifacts import artifact_from
from covey.worker.jobs.operations import APPLY, INITIAL
from covey.worker.jobs.runs import InitialJob
from covey.worker.jobs.versions import ApplyJob

log = structlog.get_logger(room="node")
MAX_MODEL_BYTES = 1 << 40
MAX_CHANGE_FACTOR = 2
"""A change may be so many times as large as the model: some codecs write more than they read where little is zero."""


async def base_model(transfers: Transfers, layout: Layout) -> Path:
    """The file of the assignment's base model.

    Raises:
        PolicyError: What is announced does not fit together.
    """
    bench, message = transfers.bench, transfers.message
    artifact = artifact_from(message.model)
    artifact.validate(MAX_MODEL_BYTES)
    if artifact.size_bytes != layout.file_bytes:
        raise PolicyError(f"the announced model has {artifact.size_bytes} bytes, its layout {layout.file_bytes}")
    if not bench.files.has(artifact.digest):
        await _made_here(transfers, artifact)
    path = await transfers.download(artifact, message.model_data, granted=message.download_granted)
    bench.keep_model(artifact.digest)
    return path


async def _made_here(transfers: Transfers, artifact: Artifact) -> None:
    """Try to make the file from what is here; if that fails, it will be downloaded."""
    bench, message = transfers.bench, transfers.message
    if message.HasField("change") and bench.files.has(message.change_base):
        await _attempt(transfers, artifact, _apply_change)
    elif message.version == 0 and not message.model_data:
        await _attempt(transfers, artifact, _from_seed)


Making = Callable[[Transfers, Path], Awaitable[Artifact]]


async def _attempt(transfers: Transfers, artifact: Artifact, make: Making) -> None:
    files = transfers.bench.files
    out = files.scratch(artifact.size_bytes)
    try:
        made = await make(transfers, out)
        if made == artifact:
            await asyncio.to_thread(files.adopt, out, artifact)
            return
        reason = "it has another digest"
    except asyncio.CancelledError:
        transfers.bench.stale.append(out)
        raise
    except CoveyError as error:
        reason = str(error)
    files.discard(out)
    log.warning("the model cannot be made here; downloading it", run=transfers.message.run, reason=reason)


async def _apply_change(transfers: Transfers, out: Path) -> Artifact:
    bench, message = transfers.bench, transfers.message
    change = artifact_from(message.change)
    change.validate(MAX_CHANGE_FACTOR * message.model.size_bytes)
    path = await transfers.download(change, message.change_data, granted=False)
    job = ApplyJob(
        spec_json=message.spec.decode(),
        layout=message.layout.decode(),
        base=bench.files.path(message.change_base),
        change=path,
        out=out,
    )
    try:
        return (await bench.worker.do(APPLY, job)).artifact
    finally:
        bench.files.release([change.digest])


async def _from_seed(transfers: Transfers, out: Path) -> Artifact:
    bench, message = transfers.bench, transfers.message
    spec = message.spec.decode()
    allowed = bench.config.allows_path(parse_json(spec).task.name)
    made = await bench.worker.do(INITIAL, InitialJob(message.run, spec, out, allowed))
    return made.artifact
