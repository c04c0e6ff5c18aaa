"""Downloads that break, and reports of how far they are."""

import asyncio
import dataclasses

import pytest

from covey import messages as msg
from covey.artifact import artifact_of
from covey.errors import CorruptChunk, NotFound
from covey.node.assignments.conversation import Conversation
from covey.node.models.assembly import Assembled, Unassembled
from tests.unit.node.memory import assignment

FILE = b"m" * (3 << 20)
ARTIFACT = artifact_of([FILE[k : k + (1 << 20)] for k in range(0, len(FILE), 1 << 20)])


@pytest.fixture
def talk(node):
    talk = Conversation(node.services, assignment("a", 2), lambda stage, update: None)
    node.coordinator.files[ARTIFACT.digest] = FILE
    node.coordinator.listen(talk.answered)
    return talk


def asks(node):
    return node.coordinator.of(msg.DownloadAsk)


async def test_a_broken_download_is_asked_for_again(node, talk):
    node.coordinator.breaks = 2
    path = await talk.download(ARTIFACT, b"", granted=True)
    assert path.read_bytes() == FILE
    assert len(asks(node)) == 2  # the first try was granted without
    assert all(0.25 <= seconds <= 0.75 for seconds in node.clock.slept)


async def test_a_file_without_its_table_is_asked_for_until_the_grant_brings_it(node, talk):
    node.coordinator.tables = [b"", ARTIFACT.chunk_sha256]
    path = await talk.download(dataclasses.replace(ARTIFACT, chunk_sha256=b""), b"", granted=False)
    assert path.read_bytes() == FILE
    assert [ask.with_table for ask in asks(node)] == [True, True]


@pytest.mark.parametrize("table", [bytes(32), ARTIFACT.chunk_sha256 * 2])
async def test_a_table_that_is_not_the_files_is_refused(node, talk, table):
    node.coordinator.tables = [table]
    with pytest.raises(CorruptChunk):
        await talk.download(dataclasses.replace(ARTIFACT, chunk_sha256=b""), b"", granted=False)


async def test_what_was_asked_in_a_session_that_is_gone_is_asked_again(node, talk):
    node.coordinator.answers = False
    work = asyncio.create_task(talk.download(ARTIFACT, b"", granted=False))
    await node.until(lambda: asks(node))
    node.coordinator.answers = True
    talk.answered(msg.DownloadGrant("0" * 64))  # for another file
    talk.ask_again()
    await work
    assert len(asks(node)) == 2


async def test_a_download_waits_for_a_session(node, talk):
    node.coordinator.lose()
    work = asyncio.create_task(talk.download(ARTIFACT, b"", granted=False))
    await asyncio.sleep(0)
    assert asks(node) == []
    node.coordinator.come_back()
    await work
    assert len(asks(node)) == 1


async def test_what_the_disk_refuses_ends_it(node, talk):
    async def download(artifact, on_bytes):
        raise NotFound("no such folder")

    node.coordinator.download = download
    with pytest.raises(NotFound):
        await talk.download(ARTIFACT, b"", granted=True)


async def test_what_came_along_must_be_the_file(talk):
    with pytest.raises(CorruptChunk):
        await talk.download(artifact_of([b"good"]), b"evil", granted=False)


def test_transfers_are_reported_in_mib_twice_a_second(node, talk):
    passed = talk.meter("downloading", 1 << 20, ARTIFACT, "node-download-chunk")
    for seconds in (0.0, 0.4, 0.5, 0.9):
        node.clock.seconds = seconds
        passed(1 << 18)
    [report] = node.coordinator.of(msg.Progress)
    assert (report.run, report.round, report.phase, report.step, report.steps) == ("a", 2, "downloading", 1, 3)
    assert report.seconds == 0.5
    assert node.services.metrics.registry.get_sample_value("covey_work_received_bytes_total") == 1 << 20


async def test_nobody_answers(talk):
    assert await talk.answer_within(0) is None


class Others:
    """Other nodes that have a model: what each question for it comes to, in order."""

    def __init__(self, node, *outcomes):
        self._node, self._outcomes, self.asked = node, list(outcomes), []

    async def bring(self, run, artifact, elsewhere, on_bytes):
        self.asked.append((run, elsewhere))
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        self._node.files.put(artifact, FILE)
        on_bytes(len(FILE))
        return outcome


@pytest.fixture
def among_others(node):
    """A conversation of a node that is sent to others, which do what the test says."""

    def make(*outcomes):
        others = Others(node, *outcomes)
        talk = Conversation(dataclasses.replace(node.services, models=others), assignment("a", 2), lambda *_: None)
        node.coordinator.files[ARTIFACT.digest] = FILE
        node.coordinator.listen(talk.answered)
        node.coordinator.elsewhere = ELSEWHERE
        return talk, others

    return make


ELSEWHERE = msg.ModelElsewhere(ARTIFACT.digest, (msg.GossipMember("bob", "bob:1", ""),), b"pass", b"signature")


async def test_a_model_comes_from_others_where_the_coordinator_says_so(node, among_others):
    talk, others = among_others(Assembled({"bob": 1}, ("eve",), 0, 0))
    path = await talk.download(ARTIFACT, b"", granted=False, peers=True)
    assert path.read_bytes() == FILE
    assert others.asked == [(talk.assignment.run, ELSEWHERE)]
    assert [ask.takes_peers for ask in asks(node)] == [True]
    assert node.coordinator.of(msg.ModelReport) == [
        msg.ModelReport(talk.assignment.run, ARTIFACT.digest, is_lent=False, liars=("eve",))
    ]


async def test_what_others_do_not_give_comes_from_the_coordinator(node, among_others):
    talk, others = among_others(Unassembled("nobody has it", ("bob",)))
    path = await talk.download(ARTIFACT, b"", granted=False, peers=True)
    assert path.read_bytes() == FILE
    assert len(others.asked) == 1
    assert [ask.takes_peers for ask in asks(node)] == [True, False]
    assert [report.liars for report in node.coordinator.of(msg.ModelReport)] == [("bob",)]


async def test_other_files_and_other_runs_never_come_from_others(node, among_others):
    talk, others = among_others()
    await talk.download(ARTIFACT, b"", granted=False)
    assert [ask.takes_peers for ask in asks(node)] == [False]
    assert others.asked == []
