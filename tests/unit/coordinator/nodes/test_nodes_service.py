"""What nodes say, and how it reaches the runs: by the run's id, checked, and in one version of the messages only."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from covey import messages as msg
from covey.artifact import Artifact
from covey.coordinator.admin.views import add_room
from covey.coordinator.nodes.enrolment import Addresses, EnrolmentServices
from covey.coordinator.nodes.members import Members
from covey.coordinator.nodes.said_room import room_of
from covey.coordinator.nodes.service import CoordinatorService, NodeServiceInputs
from covey.coordinator.nodes.sessions import QUEUE_MESSAGES, Sessions
from covey.coordinator.nodes.site_logs import FOLDER, SiteLogs
from covey.coordinator.nodes.versions import WIRE_REFUSED, version_refusal
from covey.errors import NotReady, VersionMismatch
from covey.machines.places import Room
from covey.machines.protocol import NodeAnswered, NodeJoined, NodeLost
from covey.protos import admin_pb2 as pb
from covey.storage.record.contract import NodeRecord
from covey.wire.translation import from_coordinator, from_node, to_coordinator


class Run:
    """An active run that notes what it is told."""

    def __init__(self, name, rounds=(1,)):
        self.run, self.rounds = SimpleNamespace(run=name, submitted_at=1.0), rounds
        self.posted, self.moves, self.evaluations = [], [], []
        self.mode = SimpleNamespace(served=lambda node, digest: None, open_phase=lambda node: 1)

    def post(self, event):
        self.posted.append(event)

    def collecting(self, node, number):
        return number in self.rounds

    expects = collecting

    def moved(self, node, progress):
        self.moves.append((node, progress))

    def served(self, node, digest):
        return self.mode.served(node, digest)

    def evaluates_later(self, node, version):
        self.later = (node, version)

    async def node_evaluated(self, node, version, totals):
        self.evaluations.append((node, version, totals))


@pytest.fixture
def sessions():
    return Sessions()


@pytest.fixture
def runs(world):
    """Two runs are active."""
    found = {name: Run(name) for name in ("one", "two")}
    for run in found.values():
        world.runs.add(run)
    return found


@pytest.fixture
def service(world, sessions, authority):
    return CoordinatorService(
        NodeServiceInputs(
            federation=world.services.federation,
            store=world.store,
            files=world.files,
            sessions=sessions,
            members=world.members,
            runs=world.runs,
            offers=world.offers,
            enrolment=EnrolmentServices(
                world.services.federation,
                world.store,
                authority,
                world.services.signer,
                world.members,
                Addresses(),
                world.services.clock,
            ),
            site_logs=SiteLogs(world.folder / FOLDER),
            metrics=world.metrics,
            changes=world.changes,
            background=world.background,
            clock=lambda: 100.0,
        )
    )


def hello(**changes):
    return msg.Hello(**{"version": "1.0", "tasks": ("digits",), "device": "cpu"} | changes)


def messages(session):
    """What is queued for a node, in its own words; None: the end."""
    queued = [session.outbox.get_nowait() for _ in range(session.outbox.qsize())]
    return [from_coordinator(message) if message is not None else None for message in queued]


# -- sessions


def test_only_who_has_said_hello_counts_as_connected(sessions):
    session = sessions.open("ada")
    assert ("ada" in sessions, sessions.nodes(), sorted(sessions.live())) == (False, [], ["ada"])
    session.greeted = True
    assert ("ada" in sessions, sessions.nodes()) == (True, ["ada"])
    assert 7 not in sessions


def test_messages_become_protobuf_at_the_door(sessions):
    session = sessions.open("ada")
    assert sessions.send("ada", msg.Cancel("run", 1, "why"))
    assert not sessions.send("bob", msg.Cancel("run", 1, "why"))
    assert messages(session) == [msg.Cancel("run", 1, "why")]


def test_a_newer_session_takes_the_place_of_an_older_one(sessions):
    first, second = sessions.open("ada"), sessions.open("ada")
    assert messages(first) == [msg.Goodbye("replaced", "a newer session of this node was opened"), None]
    assert (sessions.forget(first), sessions.forget(second), sessions.forget(second)) == (False, True, False)


def test_a_node_that_does_not_read_loses_its_session(sessions):
    session = sessions.open("ada")
    for _ in range(QUEUE_MESSAGES + 1):
        sessions.send("ada", msg.DownloadGrant("d"))
    assert messages(session)[-1] is None


def test_every_session_is_closed_also_of_those_who_have_not_said_hello(sessions):
    session = sessions.open("ada")
    sessions.close_all("stopping", "come back")
    assert messages(session) == [msg.Goodbye("stopping", "come back"), None]


# -- hello


async def test_what_a_gpu_has_is_known_once_the_worker_is_ready(world, service, sessions):
    session = sessions.open("ada")
    for said in (
        hello(device="auto", max_runs=2),
        hello(device="cuda (X)", max_runs=9, gpu_memory_bytes=8),
        hello(device="cuda (X)", gpu_memory_bytes=99),
    ):
        await service.dispatch(session, said)
        known = world.runs.places.room("ada")
    assert room_of(hello(device="cuda:0")) == room_of(hello(device="auto")) == Room(0, 0, None)
    assert room_of(hello()) == Room(0, 0, 0)
    assert known == Room(2, 0, 8)
    view = pb.Node()
    add_room(view, known)
    assert (view.max_runs, view.memory_bytes, view.gpu_memory_bytes) == (2, 0, 8)


async def requests(*said):
    for message in said:
        yield to_coordinator(message)


async def test_a_session_begins_with_a_hello(service):
    assert from_node(await service._greeting("ada", requests(hello()))) == hello()
    for said in ([], [msg.DownloadAsk("d")]):
        with pytest.raises(NotReady, match="hello"):
            await service._greeting("ada", requests(*said))


async def test_a_node_joins_all_active_runs_once(service, sessions, runs, world):
    session = sessions.open("ada")
    for _ in range(2):
        await service.dispatch(session, hello(drill="scaled"))
    assert session.greeted
    assert [run.posted for run in runs.values()] == [[NodeJoined("ada", 100.0)]] * 2
    record = world.record.node("ada")
    assert (record.version, record.device, tuple(record.tasks)) == ("1.0", "cpu", ("digits",))
    assert world.members.drills == {"ada": "scaled"}


@pytest.mark.parametrize(
    ("wire", "older"), [(0, "node"), (1, "node"), (msg.WIRE - 1, "node"), (msg.WIRE + 1, "coordinator")]
)
async def test_a_node_of_another_version_is_told_so_and_joins_nothing(service, sessions, runs, world, wire, older):
    with pytest.raises(VersionMismatch) as refused:
        await service._greeting("ada", requests(hello(wire=wire)))
    assert str(refused.value) == version_refusal(hello(wire=wire))
    assert f"version {wire or 1} of the messages" in str(refused.value)
    assert f"version {msg.WIRE}: upgrade the {older}" in str(refused.value)
    assert [run.posted for run in runs.values()] == [[], []]
    assert "ada" not in sessions
    (event,) = [event for event in world.record.events(node="ada") if event.kind == WIRE_REFUSED]
    assert event.detail == {"node": wire, "coordinator": msg.WIRE}


async def test_all_active_runs_hear_of_a_node_that_is_lost(service, sessions, runs, world):
    session = sessions.open("ada")
    await service.dispatch(session, hello())
    service._ended(session)
    assert [run.posted[-1] for run in runs.values()] == [NodeLost("ada", 100.0)] * 2
    service._ended(session)
    assert len(runs["one"].posted) == 2


# -- by the run's id


async def test_what_a_node_says_of_a_run_reaches_that_run_only(service, sessions, runs):
    session = sessions.open("ada")
    await service.dispatch(session, msg.Decline("two", 1, 1, "policy", "no"))
    await service.dispatch(session, msg.Decline("two", 9, 1, "policy", "of a round that is closed"))
    await service.dispatch(session, msg.Decline("three", 1, 1, "policy", "of no run"))
    assert runs["one"].posted == []
    assert runs["two"].posted == [NodeAnswered("ada", 1, "declined", "policy: no", 100.0)]


@pytest.mark.parametrize(
    ("phase", "shown"),
    [("queued", "queued"), ("training", "training"), ("uploading", "uploading"), ("dancing", "training")],
)
async def test_progress_is_shown_in_phases_that_are_known(service, sessions, runs, phase, shown):
    session = sessions.open("ada")
    await service.dispatch(session, msg.Progress("one", 1, phase, 3, 4, math.inf, 2.0))
    await service.dispatch(session, msg.Progress("one", 9, phase))
    assert getattr(runs["one"], "later", None) == (("ada", 9) if phase == "queued" else None)
    ((node, progress),) = runs["one"].moves
    assert (node, progress.phase, progress.step, progress.steps, progress.seconds) == ("ada", shown, 3, 4, 2.0)
    assert math.isnan(progress.loss)
    assert runs["two"].moves == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"accuracy":[1,2]}', {"accuracy": (1.0, 2.0)}),
        (b"{}", {}),
        (b'{"\\ud800":[1,2]}', {}),
        (b'{"a\\nb":[1,2]}', {}),
        (b'{"accuracy":[1' + 400 * b"0" + b",2]}", {}),
        (b"[" * 100_000, {}),
        (b'{"accuracy":[NaN,2],"loss":[3,4]}', {"accuracy": "it is nan over 2", "loss": (3.0, 4.0)}),
    ],
)
async def test_what_nodes_say_of_the_last_version(service, sessions, runs, text, expected):
    session = sessions.open("ada")
    await service.dispatch(session, msg.Evaluation("two", 3, text))
    await service.dispatch(session, msg.Evaluation("three", 3, text))
    assert runs["two"].evaluations == [("ada", 3, expected)]
    assert runs["one"].evaluations == []


async def test_a_file_is_granted_to_whom_a_run_serves_it(service, sessions, runs):
    session, small = sessions.open("ada"), Artifact("d", 3, b"")
    runs["two"].mode.served = lambda node, digest: small if (node, digest) == ("ada", "d") else None
    for digest in ("e", "d", "d"):
        await service.dispatch(session, msg.DownloadAsk(digest))
    assert messages(session) == [msg.DownloadGrant("d")] * 2
    other = sessions.open("bob")
    await service.dispatch(other, msg.DownloadAsk("d"))
    assert messages(other) == []


# -- members


async def test_a_signing_key_is_looked_up_again_when_it_has_changed(world):
    members, old = Members(world.store), world.keys["ada"]
    assert await members.present_key("ada") == (old.key_id, old.public_bytes)
    members.keys["ada"] = ("outdated", b"")
    assert await members.present_key("ada") == ("outdated", b"")
    members.forget_key("ada")
    assert await members.present_key("ada") == (old.key_id, old.public_bytes)
    members.register(NodeRecord("ada", "node", "active", 1.0))
    assert members.keys == {}
