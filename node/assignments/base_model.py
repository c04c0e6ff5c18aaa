"""How a node comes by the model that it is to train: it has it, makes it from what it has, or downloads it.

A node that has the version before applies the committed change; the first version it makes from the run's seed. Either
way the file must come out with the announced digest, or it is downloaded whole.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from covey import messages as msg
from covey.artifact import Artifact, chunk_count
from covey.errors import CoveyError, DiskFull, LimitExceeded, PolicyError
from covey.layout import Layout
from covey.node.assignments.conversation import Conversation
from covey.node.assignments.held_files import HeldFiles
from covey.parts import FIRST
from covey.spec import parse_json
from covey.worker.jobs.operations import APPLY, INITIAL
from covey.worker.jobs.runs import InitialJob
from covey.worker.jobs.versions import ApplyJob

MAX_FILE_BYTES = 1 << 40
MAX_LAYOUT_BYTES = 1 << 28
MAX_CHANGE_FACTOR = 2
"""A change may be so many times as large as the model: some codecs write more than they read where little is zero."""
Inputs = dict[tuple[str, str], Path]
"""The files that came beside the model, by part and source."""


class BaseModels:
    """Brings what an assignment starts from.

    Args:
        held: What is kept of each run; abandoned scratch files are noted there.
    """

    def __init__(self, held: HeldFiles) -> None:
        self._held = held

    async def bring_layout(self, talk: Conversation) -> None:
        """Put the layout into the assignment where it is a file.

        Raises:
            LimitExceeded, CorruptChunk: What is announced is no such file.
            StoreError: The disk is full, or refuses.
        """
        assignment, artifact = talk.assignment, talk.assignment.layout_file
        if artifact is None:
            return
        artifact.validate(MAX_LAYOUT_BYTES)
        await self._expect(assignment.run, artifact.digest)
        path = await talk.download(artifact, b"", granted=False)
        text = await asyncio.to_thread(path.read_text, "utf-8", "replace")
        talk.assignment = replace(assignment, layout=text)

    async def bring(self, talk: Conversation, layout: Layout) -> tuple[Path, Inputs]:
        """The file of the assignment's base model, and the files that go with it; the run's older ones are dropped.

        Raises:
            PolicyError: What is announced does not fit together.
            LimitExceeded, CorruptChunk: What is announced, or came along, is no such file, or it is too much in all.
            StoreError: The disk is full, or refuses.
        """
        assignment, artifact = talk.assignment, talk.assignment.model
        artifact.validate(MAX_FILE_BYTES)
        if artifact.size_bytes != layout.file_bytes:
            raise PolicyError(f"the announced model has {artifact.size_bytes} bytes, its layout {layout.file_bytes}")
        for item in assignment.inputs:
            if not (item.source and item.artifact.is_without_table):
                item.artifact.validate(MAX_FILE_BYTES)
        _require_the_named_first(talk)
        self._require_room(talk)
        others = [item.artifact.digest for item in assignment.inputs]
        others += [assignment.layout_file.digest] if assignment.layout_file else []
        await self._expect(assignment.run, artifact.digest, *others)
        if not talk.services.files.has(artifact.digest):
            await self._make_here(talk)
        if not (assignment.model_data or talk.services.files.has(artifact.digest)):
            # The one before is of no more use: the new one is written over it, and the disk holds one of them.
            async with self._held.lock:
                self._held.keep_only(assignment.run, (artifact.digest, *others))
        gives = has_peers(talk)
        path = await talk.download(artifact, assignment.model_data, granted=assignment.download_granted, peers=gives)
        inputs = await _inputs(talk)
        async with self._held.lock:
            self._held.hold(assignment.run, artifact.digest, others)
        if gives and talk.services.models is not None:
            is_lent = await talk.services.models.have(assignment.run, artifact)
            talk.services.link.send(msg.ModelReport(assignment.run, artifact.digest, is_lent))
        return path, inputs

    def _require_room(self, talk: Conversation) -> None:
        """Refuse what would not fit before any of it comes: the model and all files beside it, once each."""
        assignment, files = talk.assignment, talk.services.files
        artifacts = [assignment.model, *(item.artifact for item in assignment.inputs)]
        missing = {artifact.digest: artifact.size_bytes for artifact in artifacts if not files.has(artifact.digest)}
        needed, limit = sum(missing.values()), talk.services.config.settings.limits.disk_gib
        text = f"the model and the {len(artifacts) - 1} files beside it take {needed} bytes"
        if min(missing.values(), default=0) < 0 or needed > limit * 2**30:
            raise LimitExceeded(f"{text}, and limits.disk_gib in this node's node.toml allows {limit:g} GiB")
        if needed > (free := files.free_bytes()):
            raise DiskFull(f"{text}, and {free} are free in {talk.services.config.data_dir}; free some")

    async def _expect(self, run: str, *digests: str) -> None:
        """Before a file comes: if this is cancelled meanwhile, it goes with the run's next model, or with the run."""
        async with self._held.lock:
            self._held.expect(run, digests)

    async def _make_here(self, talk: Conversation) -> None:
        """Try to make the file from what is here; if that fails, it will be downloaded."""
        assignment, files = talk.assignment, talk.services.files
        if assignment.change is not None and files.has(assignment.change.base):
            await self._attempt(talk, assignment.change)
        elif assignment.version == 0 and not assignment.model_data and not _first_named(talk):
            await self._attempt(talk, None)

    async def _attempt(self, talk: Conversation, change: msg.Change | None) -> None:
        """From the run's seed, if there is no change."""
        files, wanted = talk.services.files, talk.assignment.model
        out = files.scratch(wanted.size_bytes)
        try:
            artifact = await (_from_seed(talk, out) if change is None else self._apply(talk, change, out))
            if artifact == wanted:
                await asyncio.to_thread(files.adopt, out, artifact, durable=False)
                return
            reason = "it has another digest"
        except asyncio.CancelledError:
            self._held.abandon([out])
            raise
        except CoveyError as error:
            reason = str(error)
        files.discard(out)
        talk.log.warning("the model cannot be made here; downloading it", reason=reason)

    async def _apply(self, talk: Conversation, change: msg.Change, out: Path) -> Artifact:
        assignment, services = talk.assignment, talk.services
        change.artifact.validate(MAX_CHANGE_FACTOR * assignment.model.size_bytes)
        await self._expect(assignment.run, change.artifact.digest)
        path = await talk.download(change.artifact, change.data, granted=False)
        base = services.files.path(change.base)
        job = ApplyJob(
            spec_json=assignment.spec,
            layout=assignment.layout,
            base=base,
            change=path,
            out=out,
            allow_path=services.config.allows_paths(parse_json(assignment.spec)),
        )
        return (await services.worker.do(APPLY, job)).artifact


def _first_named(talk: Conversation) -> str:
    """The digest of the file that the run's specification begins with; empty: the seed makes the first version."""
    return parse_json(talk.assignment.spec).model.digest


def _require_the_named_first(talk: Conversation) -> None:
    """Refuse a version 0, or the model of a baseline, that is not the file that the specification names."""
    evaluation = parse_json(talk.assignment.spec).evaluation
    named = evaluation.local_initial.removeprefix("sha256:")
    beside = [item.artifact.digest for item in talk.assignment.inputs if item.part == FIRST]
    if evaluation.only and beside != [named] * bool(named):
        raise PolicyError(f"training alone begins with the model {named[:12] or 'of the seed'}, and not with what came")
    digest, wanted = talk.assignment.model.digest, _first_named(talk)
    if talk.assignment.version == 0 and wanted and digest != wanted:
        raise PolicyError(f"the run begins with the model {wanted[:12]}..., and the announced one is {digest[:12]}...")


def has_peers(talk: Conversation) -> bool:
    """Whether the assignment's model may come from other nodes, and go to them: it is large enough for a stream."""
    is_large = chunk_count(talk.assignment.model.size_bytes) > 1
    return is_large and parse_json(talk.assignment.spec).exchange.models == "peers"


async def _inputs(talk: Conversation) -> Inputs:
    paths = {}
    for item in talk.assignment.inputs:
        paths[item.part, item.source] = await talk.download(item.artifact, item.data, granted=False)
    return paths


async def _from_seed(talk: Conversation, out: Path) -> Artifact:
    assignment, services = talk.assignment, talk.services
    allowed = services.config.allows_paths(parse_json(assignment.spec))
    job = InitialJob(assignment.run, assignment.spec, out, allowed)
    return (await services.worker.do(INITIAL, job)).artifact
