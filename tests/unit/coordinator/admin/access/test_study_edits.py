"""Studies by command: what is changed, by whom, and what stays as it was."""

from __future__ import annotations

import asyncio

import pytest

from covey.coordinator.admin.access.callers import Access
from covey.coordinator.admin.access.study_edits import KIND, StudyEdits
from covey.coordinator.studies import Studies
from covey.errors import Conflict, IdentityError, NotFound, SpecError, StoreError, StoreUnavailable
from covey.protos import admin_pb2 as pb
from tests.unit.coordinator.admin.serving import certified
from tests.unit.coordinator.world import ROUNDS

BRAIN = '[studies.brain]\nnodes = ["n1", "n2"]\nadmins = ["alice"]\nmembers = ["bob"]\n'


@pytest.fixture
def woken():
    return []


@pytest.fixture
def desk(world, tmp_path, woken):
    (tmp_path / "studies.toml").write_text(BRAIN)
    world.studies = Studies(tmp_path / "studies.toml")
    access = Access(world.members, world.studies, world.record, lambda: 1000.0)
    return StudyEdits(access, world.store, world.studies, lambda: woken.append(1), lambda: 1000.0)


@pytest.fixture
def root(world, identity):
    return certified(world, identity("root", "admin"))


def asked(name="brain", *, create=False, **given):
    removed = {key: given.pop(key) for key in list(given) if key.startswith("remove_")}
    return pb.EditStudyRequest(study=pb.Study(name=name, **given), create=create, **removed)


async def test_a_study_is_made_changed_and_taken_away_and_all_of_it_is_on_record(desk, root, world, tmp_path, woken):
    made = await desk.edit(asked("heart", create=True, nodes=["*"], admins=["carol"], max_runs=3), root)
    assert (made.name, list(made.nodes), made.max_runs) == ("heart", ["*"], 3)
    changed = await desk.edit(asked(nodes=["n3", "n1"], admins=["bob"], remove_nodes=["n2"]), root)
    assert (list(changed.nodes), list(changed.admins), list(changed.members)) == (["n1", "n3"], ["alice", "bob"], [])
    assert desk.studies.roles_of("bob") == {"brain": "admin"}  # at once, and after a restart
    assert Studies(tmp_path / "studies.toml").now()["brain"].nodes == ("n1", "n3")
    await desk.edit(asked("heart", remove_whole=True), root)
    assert [study.name for study in (await desk.listed(pb.ListStudiesRequest(), root)).studies] == ["brain"]
    events = [event.detail for event in world.record.events() if event.kind == "study-changed"]
    assert [(each["by"], each["study"], each["change"]) for each in events] == [
        ("root", "heart", "removed"),
        ("root", "brain", "changed"),
        ("root", "heart", "created"),
    ]
    assert events[1]["added"] == ["admin bob", "node n3"]
    assert events[1]["taken_out"] == ["member bob", "node n2"]
    assert len(woken) == 3


@pytest.mark.parametrize(
    ("request_", "error", "text"),
    [
        (asked(create=True, nodes=["n1"]), Conflict, "covey study add brain"),
        (asked("heart", nodes=["n1"]), NotFound, "no study 'heart'"),
        (asked("../x", create=True, nodes=["n1"]), SpecError, "cannot be a study's name"),
        (asked(members=['x"]\nadmins = ["mallory']), IdentityError, "not a valid name"),
        (asked(members=["*"]), IdentityError, "not a valid name"),
        (asked(admins=["eve"], members=["eve"]), SpecError, "name everybody once"),
        (asked(max_runs=17), SpecError, "max_runs"),
        (asked(remove_people=["eve"]), NotFound, "does not name eve"),
        (asked(nodes=[f"n{number}" for number in range(1001)]), SpecError, "several commands"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(desk, root, world, tmp_path, request_, error, text):
    with pytest.raises(error, match=text):
        await desk.edit(request_, root)
    assert (tmp_path / "studies.toml").read_text() == BRAIN
    assert "study-changed" not in {event.kind for event in world.record.events()}


async def test_a_study_whose_runs_have_not_ended_stays(desk, root, world):
    world.submit("run", mode='study = "brain"\n' + ROUNDS)
    with pytest.raises(Conflict, match="name of run; stop them first"):
        await desk.edit(asked(remove_whole=True), root)
    world.record.finish_run("run", "stopped", "", 1.0)
    await desk.edit(asked(remove_whole=True), root)
    assert desk.studies.now() == {}


async def test_a_file_that_was_made_wrong_by_hand_is_not_written_over(desk, root, tmp_path):
    wrong = BRAIN + "[studies.heart]\nnode = 1\n"
    (tmp_path / "studies.toml").write_text(wrong)
    with pytest.raises(SpecError, match=r"studies\.toml"):
        await desk.edit(asked(members=["eve"]), root)
    assert (tmp_path / "studies.toml").read_text() == wrong


async def test_a_change_that_cannot_be_put_on_record_is_none(desk, root, world, tmp_path, woken, monkeypatch):
    def away(event):
        raise StoreUnavailable("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(world.record, "add_event", away)
        with pytest.raises(StoreUnavailable):
            await desk.edit(asked(members=["eve"]), root)
    assert ((tmp_path / "studies.toml").read_text(), woken) == (BRAIN, [])
    await desk.edit(asked(members=["eve"]), root)
    assert [event.detail["added"] for event in world.record.events() if event.kind == KIND] == [["member eve"]]


async def test_a_change_on_record_that_was_not_made_is_said_to_have_failed(desk, root, world, tmp_path):
    (tmp_path / "studies.toml.tmp").mkdir()
    with pytest.raises(StoreError, match=r"cannot write .*studies\.toml"):
        await desk.edit(asked(members=["eve"]), root)
    failed, begun = [event.detail for event in world.record.events() if event.kind == KIND]
    assert (failed["change"], failed["study"], begun["change"]) == ("failed", "brain", "changed")
    assert "cannot write" in failed["error"]
    assert "eve" not in desk.studies.roles_of("eve")


async def test_two_admins_at_once_lose_nothing_of_each_other(desk, root):
    await asyncio.gather(*(desk.edit(asked(members=[f"m{number}"]), root) for number in range(5)))
    assert set(desk.studies.now()["brain"].members) == {"bob", *(f"m{number}" for number in range(5))}


async def test_an_auditor_sees_them_and_changes_nothing_and_a_studys_own_admin_does_neither(desk, world, identity):
    auditor, alice = (
        certified(world, identity(name, role)) for name, role in (("eve", "auditor"), ("alice", "member"))
    )
    assert [study.name for study in (await desk.listed(pb.ListStudiesRequest(), auditor)).studies] == ["brain"]
    for caller in (auditor, alice):
        with pytest.raises(IdentityError, match="needs role admin"):
            await desk.edit(asked(members=["mallory"]), caller)
    with pytest.raises(IdentityError, match="needs role admin"):
        await desk.listed(pb.ListStudiesRequest(), alice)
    assert desk.studies.roles_of("mallory") == {}
