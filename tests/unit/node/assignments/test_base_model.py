"""A base model is here, made here, or downloaded; in each case it is the announced file."""

import asyncio
import dataclasses
import json

import pytest

from covey import messages as msg
from covey.artifact import Artifact, artifact_of
from covey.errors import CoveyError, LimitExceeded, PolicyError, StoreError, WorkerError
from covey.layout import Layout
from covey.node.assignments.base_model import BaseModels
from covey.node.assignments.conversation import Conversation
from covey.node.assignments.held_files import HeldFiles
from covey.node.operator.config import Limits, NodeSettings
from covey.parts import FIRST
from covey.spec import parse_data
from tests.unit.node.memory import LARGE, SPEC, assignment, model_bytes

CHANGE = b"the change"


@pytest.fixture
def held(node):
    return HeldFiles(node.files, node.store)


@pytest.fixture
def bring(node, held):
    """Bring what an assignment starts from; each call goes on with what the one before left."""

    async def bring(asked):
        talk = Conversation(node.services, asked, lambda stage, update: None)
        node.coordinator.listen(talk.answered)
        return await BaseModels(held).bring(talk, Layout.from_json(asked.layout))

    return bring


def large(number=1, seed=0, **fields):
    return assignment("a", number, layout=LARGE, seed=seed, **fields)


def served(node, *seeds):
    for seed in seeds:
        content = model_bytes(LARGE, seed)
        node.coordinator.files[artifact_of([content]).digest] = content


def changed(node, *, base_seed=0, data=b""):
    artifact = artifact_of([CHANGE])
    node.coordinator.files[artifact.digest] = CHANGE
    return msg.Change(artifact, artifact_of([model_bytes(LARGE, base_seed)]).digest, data)


def asked_for(node):
    return [ask.digest for ask in node.coordinator.of(msg.DownloadAsk)]


async def test_a_model_that_came_along_is_not_asked_for(node, bring):
    path, inputs = await bring(assignment("a"))
    assert path.read_bytes() == assignment("a").model_data
    assert (inputs, asked_for(node)) == ({}, [])


async def test_a_large_model_is_asked_for_and_downloaded_once(node, bring):
    served(node, 0)
    for _ in range(2):
        path, _ = await bring(large())
        assert path.read_bytes() == model_bytes(LARGE)
    assert asked_for(node) == [large().model.digest]


async def test_a_model_that_is_downloaded_takes_the_place_of_the_one_before(node, bring):
    served(node, 0, 1)
    path, _ = await bring(large())
    inode = path.stat().st_ino
    path, _ = await bring(large(2, seed=1))
    assert path.read_bytes() == model_bytes(LARGE, 1)
    assert path.stat().st_ino == inode  # written over it: two of them at once would be a model more on the disk
    assert node.on_disk() == {large(2, seed=1).model.digest}
    assert node.files.bytes_used == path.stat().st_size


async def test_what_is_granted_at_once_is_not_asked_for(node, bring):
    served(node, 0)
    await bring(large(download_granted=True))
    assert asked_for(node) == []


async def test_what_would_not_fit_is_refused_in_words_before_any_of_it_comes(node, bring, monkeypatch):
    served(node, 0)
    content = model_bytes(LARGE, 1)
    others = tuple(msg.InputFile("peer", f"n{k}", artifact_of([content[k:]])) for k in range(3))
    needed = large().model.size_bytes + sum(item.artifact.size_bytes for item in others)
    monkeypatch.setattr(type(node.files), "free_bytes", lambda files: needed - 1)
    with pytest.raises(StoreError, match=f"the 3 files beside it take {needed} bytes, and {needed - 1} are free"):
        await bring(large(inputs=others))
    settings = NodeSettings(limits=Limits(disk_gib=(needed - 2) / 2**30))
    config = dataclasses.replace(node.services.config, settings=settings)
    node.services = dataclasses.replace(node.services, config=config)
    with pytest.raises(LimitExceeded, match=r"limits.disk_gib in this node.s node.toml allows 0.00149083 GiB"):
        await bring(large(inputs=others))
    hostile = (msg.InputFile("peer", "n0", Artifact("0" * 64, -(1 << 40), b"")),)
    with pytest.raises(CoveyError):
        await bring(large(inputs=hostile))
    assert asked_for(node) == []


async def test_the_first_model_is_made_from_the_seed(node, bring):
    node.worker.models["seed"] = model_bytes(LARGE)
    path, _ = await bring(large(version=0))
    assert path.read_bytes() == model_bytes(LARGE)
    assert asked_for(node) == []


@pytest.mark.parametrize("data", [b"", CHANGE])
async def test_the_change_is_applied_to_the_version_before(node, bring, data):
    served(node, 0)
    node.worker.models[CHANGE] = model_bytes(LARGE, 1)
    await bring(large())
    path, _ = await bring(large(2, seed=1, change=changed(node, data=data)))
    assert path.read_bytes() == model_bytes(LARGE, 1)
    assert asked_for(node)[1:] == ([] if data else [artifact_of([CHANGE]).digest])
    assert node.on_disk() == {large(2, seed=1).model.digest}


async def test_a_change_to_a_version_that_is_not_here_is_of_no_use(node, bring):
    served(node, 1)
    await bring(large(2, seed=1, change=changed(node)))
    assert asked_for(node) == [large(2, seed=1).model.digest]


@pytest.mark.parametrize("failure", ["another model", "an error"])
async def test_what_cannot_be_made_here_is_downloaded(node, bring, failure):
    served(node, 0)
    node.worker.models["seed"] = model_bytes(LARGE, 9)
    node.worker.errors = [WorkerError("no")] if failure == "an error" else []
    path, _ = await bring(large(version=0))
    assert path.read_bytes() == model_bytes(LARGE)
    assert not list((node.data_dir / "files" / "scratch").iterdir())


async def test_a_model_of_another_size_than_its_layout_is_refused(node, bring):
    with pytest.raises(PolicyError, match="its layout"):
        await bring(large(model=artifact_of([b"short"])))


async def test_a_change_of_absurd_size_is_not_fetched(node, bring):
    served(node, 0, 1)
    await bring(large())
    huge = artifact_of([bytes(3 * LARGE.file_bytes)])
    await bring(large(2, seed=1, change=msg.Change(huge, large().model.digest)))
    assert huge.digest not in asked_for(node)


async def test_inputs_come_the_same_way(node, bring):
    one, two = artifact_of([b"small"]), artifact_of([b"large" * 1000])
    node.coordinator.files[two.digest] = b"large" * 1000
    files = (msg.InputFile("teacher", "n1", one, b"small"), msg.InputFile("teacher", "n2", two))
    _, inputs = await bring(assignment("a", inputs=files))
    contents = {key: path.read_bytes() for key, path in inputs.items()}
    assert contents == {("teacher", "n1"): b"small", ("teacher", "n2"): b"large" * 1000}
    assert node.on_disk() == {assignment("a").model.digest, one.digest, two.digest}
    await bring(assignment("a", 2, seed=1))
    assert node.on_disk() == {assignment("a", seed=1).model.digest}


async def test_an_input_of_absurd_size_is_refused(node, bring):
    absurd = dataclasses.replace(artifact_of([b"x"]), size_bytes=1 << 60)
    with pytest.raises(LimitExceeded):
        await bring(assignment("a", inputs=(msg.InputFile("teacher", "", absurd),)))


async def test_the_file_of_a_making_that_was_cancelled_is_dropped_later(node, bring, held):
    begun = asyncio.Event()

    async def initial(run, spec_json, out, *, allow_path):
        out.write_bytes(b"half")
        begun.set()
        await asyncio.Event().wait()

    node.worker.initial = initial
    work = asyncio.create_task(bring(large(version=0)))
    await begun.wait()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    scratch = node.data_dir / "files" / "scratch"
    assert len(list(scratch.iterdir())) == 1
    held.discard_abandoned()
    assert not list(scratch.iterdir())


async def test_what_came_before_a_download_was_cancelled_goes_with_the_run_s_next_model(node, bring, held):
    """The first input came along; the second is asked for in vain."""
    came, missing = artifact_of([b"small"]), artifact_of([b"large" * 1000])
    node.coordinator.answers = False
    files = (msg.InputFile("teacher", "n1", came, b"small"), msg.InputFile("teacher", "n2", missing))
    work = asyncio.create_task(bring(assignment("a", inputs=files)))
    await node.until(lambda: asked_for(node))
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert node.on_disk() == {assignment("a").model.digest, came.digest}
    await bring(assignment("a", 2, seed=1))
    assert node.on_disk() == {assignment("a", seed=1).model.digest}


async def test_what_came_before_a_download_was_cancelled_goes_with_the_run(node, bring, held):
    node.coordinator.answers = False
    missing = msg.InputFile("teacher", "n2", artifact_of([b"large" * 1000]))
    work = asyncio.create_task(bring(assignment("a", inputs=(missing,))))
    await node.until(lambda: asked_for(node))
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    held.forget("a")
    assert node.on_disk() == set()


class Lending:
    """What a node lends, as it is told; nobody has anything for it."""

    def __init__(self, lends):
        self.lends, self.models = lends, []

    async def have(self, run, artifact):
        self.models.append((run, artifact.digest))
        return self.lends


@pytest.mark.parametrize("lends", [True, False])
async def test_a_model_that_others_may_have_is_lent_and_said_to_be_there(node, held, lends):
    size = 3 << 20
    layout = Layout.from_json(f'[["w", "float32", [{size // 4}], "model"]]')
    content = bytes(layout.file_bytes)
    model = artifact_of([content[start : start + (1 << 20)] for start in range(0, len(content), 1 << 20)])
    node.coordinator.files[model.digest] = content
    lending = Lending(lends)
    for exchange in ({}, {"models": "peers"}):
        spec = json.dumps(json.loads(assignment("a").spec) | {"exchange": exchange})
        asked = dataclasses.replace(assignment("a"), layout="", spec=spec, model=model, model_data=b"", version=1)
        talk = Conversation(dataclasses.replace(node.services, models=lending), asked, lambda stage, update: None)
        node.coordinator.listen(talk.answered)
        await BaseModels(held).bring(talk, layout)
    assert lending.models == [("a", model.digest)]
    assert node.coordinator.of(msg.ModelReport) == [msg.ModelReport("a", model.digest, lends)]


async def test_training_alone_begins_with_the_model_that_is_named_and_no_other(bring):
    first, other = (artifact_of([content]) for content in (b"first", b"other"))
    only = {
        "evaluation": {"only": True, "local_rounds": 1, "local_initial": f"sha256:{first.digest}"},
        "model": {"initial": "run:x"},
        "rounds": {"count": 1},
    }
    spec = parse_data(json.loads(SPEC) | only).to_json()
    file = msg.InputFile(FIRST, "", first, b"first")
    _, inputs = await bring(assignment("a", spec=spec, inputs=(file,)))
    assert inputs[FIRST, ""].read_bytes() == b"first"
    for wrong in ((), (file, file), (msg.InputFile(FIRST, "", other, b"other"),)):
        with pytest.raises(PolicyError, match="training alone begins with the model"):
            await bring(assignment("a", spec=spec, inputs=wrong))
