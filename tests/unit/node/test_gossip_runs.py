"""The runs that a coordinator hands out: a change costs whom it concerns, and a disk in the way costs time only."""

from __future__ import annotations

import asyncio
import errno
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from covey import messages as msg
from covey.errors import SpecError
from covey.node import gossip_runs
from covey.node.gossip.folders import incarnations, run_folder
from covey.node.gossip.orders import FILE, kept_orders, revised_in
from covey.node.gossip.record.database import FILE as RECORD
from covey.node.gossip_models import GivenModels
from covey.node.gossip_runs import GossipRuns
from covey.node.operator.config import NodeConfig
from covey.spec import GossipSpec, TaskSection
from covey.storage.files.artifacts import ArtifactFiles

ADA, BOB = msg.GossipMember("ada", "a:1", "aa" * 32), msg.GossipMember("bob", "b:1", "bb" * 32)
CYD = msg.GossipMember("cyd", "c:1", "cc" * 32, late=True, part=2)
SPEC = GossipSpec(name="r", mode="gossip", task=TaskSection(name="digits")).to_json()
ORDER = msg.GossipOrder("run-1", SPEC, "5" * 64, (ADA, BOB))


class Link:
    """A session that is there, and keeps what is said."""

    up = True

    def __init__(self) -> None:
        self.sent: list[msg.NodeMessage] = []

    def send(self, message: msg.NodeMessage) -> None:
        self.sent.append(message)

    async def connected(self) -> None:
        """It is."""


def nowhere(files: ArtifactFiles) -> Any:
    """These runs begin with what the seed gives."""
    raise AssertionError("nothing is brought")


class Daemon:
    """The runs of ada. Each try to take part ends where its listener would be opened, when it may go on."""

    def __init__(self, folder: Path, identity: Any) -> None:
        self.link, self.folder = Link(), folder / "home"
        self.tries, self.goes_on = 0, asyncio.Event()
        self._more = asyncio.Event()
        given = GivenModels(self.link, nowhere, 0)
        self.runs = GossipRuns(NodeConfig(self.folder, device="cpu"), identity("ada"), self.link, self._before, given)

    async def _before(self) -> None:
        self.tries += 1
        self._more.set()
        await self.goes_on.wait()
        raise SpecError("peers.listen: this test listens nowhere")

    async def tried(self, often: int) -> None:
        async with asyncio.timeout(60):
            while self.tries < often:
                self._more.clear()
                await self._more.wait()

    async def until(self, met: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not met():  # noqa: ASYNC110 -- it happens on the disk
                await asyncio.sleep(0.02)


@pytest.fixture
async def daemon(tmp_path: Path, identity: Any) -> Any:
    made = Daemon(tmp_path, identity)
    yield made
    await made.runs.stop()


def test_what_has_changed_is_told_by_name() -> None:
    moved = replace(BOB, address="b:2", fingerprint="bc" * 32)
    assert revised_in(ORDER, replace(ORDER, members=(ADA, moved, CYD))) == [moved, CYD]
    assert revised_in(ORDER, ORDER) == []
    for other in (
        replace(ORDER, members=(ADA,)),
        replace(ORDER, members=(ADA, replace(BOB, part=1))),
        replace(ORDER, model_sha256="6" * 64),
    ):
        assert revised_in(ORDER, other) is None


async def test_another_address_of_a_peer_ends_nothing_that_is_at_work(daemon: Daemon) -> None:
    daemon.runs.start()
    daemon.runs.receive(ORDER)
    await daemon.tried(1)
    moved = replace(ORDER, members=(ADA, replace(BOB, address="b:2"), CYD))
    daemon.runs.receive(moved)
    [run] = daemon.runs._runs.values()
    assert not run.stop.is_set()
    assert {name: member.address for name, member in run.roster.members.items()} == {
        "ada": "a:1",
        "bob": "b:2",
        "cyd": "c:1",
    }
    assert list(kept_orders(daemon.folder)) == [moved]
    daemon.runs.receive(replace(moved, model_sha256="6" * 64))
    assert run.stop.is_set()  # that is another run's beginning


async def test_an_order_that_cannot_be_kept_counts_and_is_kept_when_it_can_be(daemon: Daemon) -> None:
    daemon.runs.start()
    daemon.runs.receive(ORDER)
    full = run_folder(daemon.folder, "run-1") / f"{FILE}.new"
    full.symlink_to("/dev/full")
    joined = replace(ORDER, members=(ADA, BOB, CYD))
    daemon.runs.receive(joined)
    [run] = daemon.runs._runs.values()
    assert "cyd" in run.roster.members
    assert list(kept_orders(daemon.folder)) == [ORDER]
    full.unlink()
    await daemon.until(lambda: list(kept_orders(daemon.folder)) == [joined])


async def test_a_damaged_record_of_one_run_is_in_the_way_of_no_other_run(daemon: Daemon) -> None:
    daemon.goes_on.set()
    record = run_folder(daemon.folder, "run-1") / "1" / RECORD
    record.parent.mkdir(parents=True)
    record.write_bytes(b"no database" * 1000)
    daemon.runs.receive(ORDER)
    daemon.runs.start()
    daemon.runs.receive(replace(ORDER, run="run-2"))
    await daemon.tried(1)
    await daemon.until(lambda: any(isinstance(said, msg.Decline) for said in daemon.link.sent))
    assert [said.run for said in daemon.link.sent if isinstance(said, msg.Decline)] == ["run-2"]
    assert "not a database" in daemon.runs._runs["run-1"].failure


async def test_too_many_open_files_end_neither_taking_part_nor_stating(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: set[str] = set()

    def incarnations_or_refusal(folder: Path) -> list[int]:
        if refused != {"_ended", "_state_one"}:
            refused.add(sys._getframe(1).f_code.co_name)
            raise OSError(errno.EMFILE, "Too many open files", str(folder))
        return incarnations(folder)

    monkeypatch.setattr(gossip_runs, "incarnations", incarnations_or_refusal)
    daemon.runs.start()
    daemon.runs.receive(ORDER)
    await daemon.tried(1)
    assert [task.done() for task in daemon.runs._tasks] == [False, False]
