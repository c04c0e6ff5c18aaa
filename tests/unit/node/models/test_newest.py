"""Whose model a node that joins takes: the nearest that has one; its chunks come from all."""

import pytest

from covey.artifact import CHUNK_BYTES, Artifact, artifact_of
from covey.errors import DiskFull, NotFound, NotReady
from covey.node.models.assembly import Unassembled
from covey.node.models.holders import Holders
from covey.node.models.newest import bring_newest
from covey.node.models.sources import Candidate
from covey.storage.files.artifacts import ArtifactFiles

SIZE = 2 * CHUNK_BYTES + 5


def pieces_of(seed):
    data = bytes([seed]) * SIZE
    return [memoryview(data)[start : start + CHUNK_BYTES] for start in range(0, SIZE, CHUNK_BYTES)]


class Calls:
    """Peers with a newest model each (or none), and with the models that they have."""

    def __init__(self, newest, having):
        self._newest, self._having, self.asked = newest, having, []

    async def newest(self, source):
        self.asked.append(source)
        model = self._newest[source]
        if model is None:
            raise NotReady("this node has no model to give")
        return (artifact_of(pieces_of(model)) if isinstance(model, int) else model), 7

    async def ask(self, source, artifact, first, count):
        model = next((m for m in self._having[source] if artifact_of(pieces_of(m)) == artifact), None)
        if model is None:
            raise NotFound("not here")
        for piece in pieces_of(model)[first : first + count]:
            yield piece


async def brought(tmp_path, calls, *names):
    near = [Candidate(name, round_trip_s=0.01 * place) for place, name in enumerate(names, 1)]
    files = ArtifactFiles(tmp_path)
    joined = await bring_newest(near[::-1], calls, Holders(files), range(SIZE, SIZE + 1))
    assert files.path(joined.model.digest).read_bytes() == b"".join(
        pieces_of(files.path(joined.model.digest).read_bytes()[0])
    )
    return joined


async def test_the_nearest_ones(tmp_path):
    joined = await brought(tmp_path, Calls({"ada": 1, "bob": 2}, {"ada": [1], "bob": [1, 2]}), "ada", "bob")
    assert (joined.model, joined.source, joined.step) == (artifact_of(pieces_of(1)), "ada", 7)
    assert sum(joined.came.given.values()) == SIZE


WRONG = {
    "none": None,
    "another size": artifact_of([b"small"]),
    "another table": Artifact(artifact_of(pieces_of(1)).digest, SIZE, bytes(96)),
    "no digest": Artifact("../x", SIZE, artifact_of(pieces_of(1)).chunk_sha256),
    "one that nobody has": 9,
}


@pytest.mark.parametrize("offer", WRONG.values(), ids=WRONG)
async def test_a_peer_whose_model_does_not_come_is_passed_over(tmp_path, offer):
    joined = await brought(tmp_path, Calls({"ada": offer, "bob": 2}, {"ada": [], "bob": [2]}), "ada", "bob")
    assert joined.source == "bob"


async def test_without_any_the_reasons_are_said(tmp_path):
    calls = Calls({"ada": None, "bob": 3}, {"ada": [], "bob": []})
    with pytest.raises(Unassembled, match=r"ada: this node has no model.*bob: no node is left.*could not be asked"):
        await brought(tmp_path, calls, "ada", "bob")
    with pytest.raises(Unassembled, match="no peer that can be asked"):
        await brought(tmp_path, calls)


async def test_a_full_disk_here_is_no_peer_s_fault_and_one_there_is_that_peer_s(tmp_path, monkeypatch):
    calls = Calls({"ada": 1, "bob": 2}, {"ada": [1], "bob": [2]})
    honest, begin = calls.newest, ArtifactFiles.begin

    async def newest(source):
        if source == "ada":
            raise DiskFull("no room at ada")
        return await honest(source)

    monkeypatch.setattr(calls, "newest", newest)
    assert (await brought(tmp_path, calls, "ada", "bob")).source == "bob"

    def full(files, artifact):
        raise DiskFull("no room here")

    monkeypatch.setattr(ArtifactFiles, "begin", full)
    with pytest.raises(DiskFull, match="no room here"):
        await brought(tmp_path, calls, "ada", "bob")
    monkeypatch.setattr(ArtifactFiles, "begin", begin)
    assert (await brought(tmp_path, calls, "ada", "bob")).source == "bob"
