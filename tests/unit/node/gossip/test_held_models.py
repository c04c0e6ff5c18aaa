"""A node's models stay while it needs them, whatever peers bring and give up of the same name meanwhile."""

import asyncio
import functools
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from covey.artifact import Artifact, artifact_of_file
from covey.errors import Obstructed
from covey.node.gossip.diary import Diary
from covey.node.gossip.obstacles import Obstacles
from covey.node.gossip.ports import Moment, Piece, State
from covey.node.gossip.record.database import open_record
from covey.node.gossip.record.reader import digests_of, read_models, read_saved
from covey.node.gossip.work import Course, WorkerLabour
from covey.node.models.holders import Holders
from covey.node.operator.config import NodeConfig
from covey.storage.files.artifacts import ArtifactFiles
from tests.unit.node.gossip.nodes import D, NumpyWorker, Unit, UnitNode, has_come_to, spec_of

pytestmark = pytest.mark.timeout(60)


def touch(node: UnitNode, digest: str) -> None:
    """What a peer does that offers a file of this name, and gives its batch up."""
    with node.holders.holding(digest):
        pass


async def test_a_model_is_held_before_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit, loop, made = Unit(tmp_path, spec_of(2, 3, keep_every=1), "ab"), asyncio.get_running_loop(), list[str]()
    adopt = ArtifactFiles.adopt

    def adopted(files: ArtifactFiles, path: Path, artifact: Artifact, **options: Any) -> Path:
        final = adopt(files, path, artifact, **options)
        if threading.current_thread() is not threading.main_thread():

            async def peers() -> None:
                for node in unit.nodes.values():
                    if node.files is files:
                        made.append(artifact.digest)
                        touch(node, artifact.digest)

            asyncio.run_coroutine_threadsafe(peers(), loop).result(30)
        return final

    monkeypatch.setattr(ArtifactFiles, "adopt", adopted)
    for name in unit.names:
        unit.start(name)
    assert [await unit.tasks[name] for name in unit.names] == ["completed"] * 2
    assert made


async def test_what_is_on_record_stays_from_before_peers_are_heard(tmp_path: Path) -> None:
    unit = Unit(tmp_path, spec_of(2, 6, keep_every=4), "ab")
    for name in unit.names:
        unit.start(name)
    await unit.until("a", functools.partial(has_come_to, 1))
    assert await unit.stop("a") == "stopped"
    node = unit.start("a")  # it has not run yet
    on_record = {path.name for path in (node.home.folder / "files" / "artifacts").iterdir()}
    for digest in on_record:
        touch(node, digest)
    assert on_record
    assert all(node.files.has(digest) for digest in on_record)
    assert [await unit.tasks[name] for name in unit.names] == ["completed"] * 2
    engine = open_record(node.home.folder)
    stay = {model.digest for model, _ in read_models(engine).values()}
    needed = digests_of(read_saved(engine)) | stay
    engine.dispose()
    assert {
        path.name for path in (node.home.folder / "files" / "artifacts").iterdir()
    } == needed  # nothing is left over
    assert node.actor.keeping.digests == stay
    audit = unit.audit()
    assert audit.is_exact, audit.findings


async def test_what_a_job_reads_stays_until_it_is_done_and_what_it_could_not_keep_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holders, adopt, tries = Holders(files := ArtifactFiles(tmp_path)), ArtifactFiles.adopt, list[str]()
    course = Course("unit", spec_of(2, 3), "{}", 0, 2, 4 * D)
    tasks = list[asyncio.Task[None]]()

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        tasks.append(asyncio.create_task(work))

    beside = NumpyWorker(), spawn, Diary(lambda: 0), Obstacles(retry_s=0.0)
    labour = WorkerLabour(course, NodeConfig(tmp_path), holders, *beside)

    def model(value: float) -> Artifact:
        path = files.scratch(0)
        np.full(D, value, np.float32).tofile(path)
        made = artifact_of_file(path)
        holders.hold(made.digest)
        files.adopt(path, made)
        return made

    own, came = model(1.0), model(3.0)

    def obstructed(files: ArtifactFiles, path: Path, artifact: Artifact, **options: Any) -> Path:
        tries.append(artifact.digest)
        final = adopt(files, path, artifact, **options)
        if len(tries) == 1:
            raise Obstructed("the disk is mounted read-only")
        return final

    monkeypatch.setattr(ArtifactFiles, "adopt", obstructed)
    done: asyncio.Future[State[Artifact]] = asyncio.get_running_loop().create_future()
    labour.mix(Moment(0), State(own), [Piece(came, 0.5)], done.set_result)
    for each in (own, came):
        holders.release(each.digest)
    mixed = (await done).model
    assert np.fromfile(files.path(mixed.digest), np.float32).tolist() == [2.0] * D
    assert tries == [mixed.digest] * 2
    await asyncio.gather(*tasks)
    assert [files.has(each.digest) for each in (own, came, mixed)] == [False, False, True]
    holders.release(mixed.digest)
    assert not files.has(mixed.digest)
