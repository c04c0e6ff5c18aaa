"""A gossip node from its record to its end: through a bad wire, stops in between, and records that are not its own."""

import asyncio
import functools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from covey import faults
from covey.artifact import artifact_of, artifact_of_file
from covey.cli.main import covey
from covey.client import authority
from covey.client.gossip_nodes import read_node
from covey.errors import Conflict, DiskFull, LedgerError, NotFound, NotReady, TransferError
from covey.gossip.ledger import Incarnation
from covey.gossip.mass import ONE
from covey.gossip.push_sum.events import PeerEvicted, PeerJoined, PeerLeft, PeerSuspected, Progressed
from covey.node.gossip.folders import ask_to_leave
from covey.node.gossip.ports import Told
from covey.node.gossip.record.database import Durability, open_record
from covey.node.gossip.record.now import Teller
from covey.node.gossip.record.reader import rows_of
from covey.node.gossip.record.schema import NoteRow, SpanRow
from covey.node.models.assembly import Assembled, Unassembled
from covey.node.models.newest import JoinedModel
from tests.unit.node.gossip.nodes import D, Unit, UnitNode, has_come_to, spec_of, step_of

pytestmark = pytest.mark.timeout(60)


async def test_a_bad_wire_costs_time_and_changes_no_model(tmp_path: Path) -> None:
    models = {}
    for loss in (0.0, 0.3):
        unit = Unit(tmp_path / str(loss), spec_of(3, 6), "abc")
        nodes = [unit.start(name, loss) for name in unit.names]
        assert [await unit.tasks[name] for name in unit.names] == ["completed"] * 3
        models[loss] = [node.model for node in nodes]
        audit = unit.audit()
        assert audit.is_exact, audit.findings
        assert (audit.live, audit.in_flight) == (3 * ONE, 0)
        states = [read_node(unit.folder / name) for name in unit.names]
        assert [(state.facts.ended, state.machine.step) for state in states] == [("completed", 6)] * 3
        assert [state.metrics for state in states] == [{"loss": 0.5}] * 3
        for state, node in zip(states, nodes, strict=True):  # the last mixture is on record, and its file is there
            assert state.model == node.files.path(node.actor.executor.model.digest)
            assert {row["state"] for row in state.peers} <= {"finished", "away"}
            tellers = [Teller(tmp_path, 3, stays=stays) for stays in (True, False)]
            shown = [teller.seen(node.actor.executor, [], [], {}, "") for teller in tellers]
            assert "it stays until it is stopped" in shown[0].waits_for
            assert shown[1].waits_for == "all steps are done; waiting for the others"
            kept = {path.name for path in (node.home.folder / "files" / "artifacts").iterdir()}
            assert kept == {state.model.name}  # nothing else is left over
    assert models[0.0] == models[0.3]


async def test_what_a_drill_loses_at_the_post_is_sent_again_and_changes_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {}
    for loss in (0.0, 0.3):
        monkeypatch.setattr(faults, "_losses", dict.fromkeys(("gossip-word", "gossip-batch", "gossip-answer"), loss))
        unit = Unit(tmp_path / str(loss), spec_of(3, 6), "abc")
        nodes = [unit.start(name) for name in unit.names]
        assert [await unit.tasks[name] for name in unit.names] == ["completed"] * 3
        models[loss] = [node.model for node in nodes]
        audit = unit.audit()
        assert (audit.is_exact, audit.live, audit.in_flight) == (True, 3 * ONE, 0)
        tries = []
        for node in nodes:
            engine = open_record(node.home.folder)
            tries += [row["tries"] for row in rows_of(engine, SpanRow) if row["kind"] == "send"]
            engine.dispose()
        assert (max(tries) > 1) is (loss > 0)
    assert models[0.0] == models[0.3]


@pytest.mark.parametrize("durability", ["process", "power"])
async def test_models_are_synced_where_a_power_cut_counts_and_only_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Durability
) -> None:
    unit = Unit(tmp_path, spec_of(2, 4), "ab")
    for name in unit.names:
        unit.start(name, durability=durability)  # what is made before the first step is synced
    synced: set[str] = set()
    sync = os.fsync

    def noted(fd: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{fd}").resolve()))
        sync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    assert [await unit.tasks[name] for name in unit.names] == ["completed"] * 2
    files = {path for path in synced if "/scratch/" in path}
    assert len(files) >= 2 * 4 if durability == "power" else not synced


def leave(data_dir: Path, *options: str) -> str:
    return CliRunner().invoke(covey, ["gossip", "leave", "--data-dir", str(data_dir), *options]).output


async def test_a_node_that_is_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    unit = Unit(tmp_path, spec_of(3, 12), "abc")
    for name in unit.names:
        unit.start(name, 0.1)
    for at in (2, 5, 8):
        await unit.until("b", functools.partial(has_come_to, at))
        assert await unit.stop("b") == "stopped"
        asked = [leave(tmp_path / "b", *options) for options in ((), ("--take-back",), ("--take-back",))]
        assert "until then --take-back undoes it" in asked[0]
        assert asked[1] == "the node goes on when it is started again\n"
        assert "nobody asked the node" in asked[2]
        unit.start("b", 0.1)
    assert [await unit.tasks[name] for name in unit.names] == ["completed"] * 3
    audit = unit.audit()
    assert audit.is_exact, audit.findings
    assert (audit.live, audit.in_flight, audit.lost) == (3 * ONE, 0, 0)


async def test_models_of_every_third_step_stay_also_where_a_node_leaves_and_where_one_is_started_again(
    tmp_path: Path,
) -> None:
    unit = Unit(tmp_path, spec_of(3, 12, keep_every=3), "abc")
    for name in unit.names:
        unit.start(name)
    await unit.until("a", functools.partial(has_come_to, 9))
    asked = CliRunner().invoke(covey, ["gossip", "leave", "--data-dir", str(tmp_path / "a"), "--json"])
    assert json.loads(asked.stdout) == {"run": "unit", "node": "a", "incarnation": 1, "running": False, "silent": []}
    assert await asyncio.gather(*unit.tasks.values()) == ["left", "completed", "completed"]
    unit.down("b")
    before = read_node(tmp_path / "b").model
    again = unit.start("b")
    assert again.home.facts.ended == "completed"
    await unit.stop("b")
    assert read_node(tmp_path / "b").model == before is not None  # whatever is put on record once more
    kept = [read_node(tmp_path / name).published for name in unit.names]
    for step in (0, 3, 6):  # a node adds its place to all numbers in each step, and mixing keeps the mean
        models = [(np.fromfile(node[step][0], np.float32), node[step][1]) for node in kept]
        mean = sum(model * units for model, units in models) / sum(units for _, units in models)
        assert sum(units for _, units in models) == 3 * ONE
        assert mean == pytest.approx(np.full(D, (step + 1) * 1.0))
    assert all({0, 3, 6, 9} <= node.keys() for node in kept[1:])


class BrokenAtTheEnd:
    """Drops the first words of a node that it is through, as a link does that is being replaced just then."""

    def __init__(self, most: int) -> None:
        self._left = most

    def __call__(self, event: Told) -> bool:
        if not isinstance(event, Progressed) or not event.is_finished or not self._left:
            return False
        self._left -= 1
        return True


@pytest.mark.parametrize("deaf", ["a", "b", "ab"])
async def test_no_node_ends_before_its_peers_heard_that_it_is_through(tmp_path: Path, deaf: str) -> None:
    unit = Unit(tmp_path, spec_of(2, 3), "ab")
    for name in unit.names:
        unit.start(name, drops=BrokenAtTheEnd(20 if name in deaf else 0), away_s=1e6)
    async with asyncio.timeout(40):  # one that is left in doubt would wait for ever here
        assert [await unit.tasks[name] for name in unit.names] == ["completed"] * 2


async def test_an_older_record_is_noticed_and_its_node_joins_anew(tmp_path: Path) -> None:
    unit = Unit(tmp_path, spec_of(3, 24), "abc")
    for name in unit.names:
        unit.start(name)
    await unit.until("b", lambda node: step_of(node) >= 3)
    await unit.stop("b")
    shutil.copytree(tmp_path / "b", tmp_path / "copy")
    unit.start("b")
    await unit.until("b", lambda node: step_of(node) >= 6)
    await unit.stop("b")
    shutil.rmtree(tmp_path / "b")
    (tmp_path / "copy").rename(tmp_path / "b")
    unit.start("b")
    assert await unit.tasks["b"] == "retired"
    unit.down("b")
    assert "older one" in read_node(tmp_path / "b").facts.reason
    with pytest.raises(Conflict, match="--rejoin"):
        unit.start("b")
    for who in list(unit.nodes):
        unit.nodes[who].actor.heard(Incarnation("b"), PeerEvicted(Incarnation("b"), 0.0))
    again = unit.start("b", rejoins=True)
    assert again.me == Incarnation("b", 2)
    for who, node in unit.nodes.items():
        for other in unit.nodes:
            if other != who and other.node == "b":
                node.actor.heard(other, PeerJoined(other, 0, 0.0))
    assert [await unit.tasks[name] for name in unit.names] == ["completed"] * 3
    audit = unit.audit()
    assert audit.is_exact, audit.findings
    assert audit.minted == 3 * ONE
    assert audit.live == 3 * ONE - audit.lost
    assert read_node(tmp_path / "b").ledger.live > 0  # what peers gave it


MINT = {"join": "mint"}


class Neighbour:
    """Gives a node the newest model of another one, as its wire would; at first there is none, or no room for it."""

    def __init__(self, node: UnitNode, unit: Unit, of: str, *, is_broken: bool = False, has_room: bool = True) -> None:
        self._node, self._unit, self._of, self._is_broken, self._has_room = node, unit, of, is_broken, has_room
        self.tries, self.stood = 0, ""
        self.joined: JoinedModel | None = None

    async def bring_model(self) -> JoinedModel:
        self.tries += 1
        self.stood = self._node.actor.obstacle
        if self.tries < 3 and not self._has_room:
            raise DiskFull("no room for a model")
        if self.tries < 3:
            raise Unassembled("there is no peer that can be asked for a model")
        giver = self._unit.nodes[Incarnation(self._of)]
        model, step = giver.actor.shelf.newest(self._node.me)
        with giver.actor.shelf.lend(model.digest) as lent:
            data = np.fromfile(lent.path, np.float32)
        if self._is_broken:
            data[0] = np.inf
            model = artifact_of([data.tobytes()])
        self._node.holders.hold(model.digest)
        self._node.files.put(model, data.tobytes())
        self.joined = JoinedModel(model, self._of, step, Assembled({self._of: 4 * D}, (), 0, 0))
        return self.joined


async def rejoined(
    tmp_path: Path, gossip: dict[str, str] = MINT, **neighbour: bool
) -> tuple[Unit, UnitNode, Neighbour]:
    """Nodes of which one lost its disk, was evicted, and takes part again with mass of its own, after ten steps."""
    unit = Unit(tmp_path, spec_of(3, 40, **gossip), "abc")
    for name in unit.names:
        unit.start(name)
    await unit.until("a", functools.partial(has_come_to, 10))
    for who in list(unit.nodes):
        unit.nodes[who].actor.heard(Incarnation("b"), PeerEvicted(Incarnation("b"), 0.0))
    assert await unit.tasks["b"] == "evicted"
    unit.down("b")
    made: list[Neighbour] = []

    def models(node: UnitNode) -> Neighbour:
        made.append(Neighbour(node, unit, "a", **neighbour))
        return made[0]

    again = unit.start("b", rejoins=True, models=models)
    assert (again.me, again.home.facts.minted) == (Incarnation("b", 2), ONE)
    for node in unit.nodes.values():
        if node.me != again.me:
            node.actor.heard(again.me, PeerJoined(again.me, ONE, 0.0))
    return unit, again, made[0]


@pytest.mark.parametrize("gossip", [MINT, {"protocol": "epidemic"}], ids=["mint", "where the receiver weighs"])
async def test_who_joins_with_mass_of_its_own_begins_with_a_peers_model(tmp_path: Path, gossip: dict[str, str]) -> None:
    unit, again, neighbour = await rejoined(tmp_path, gossip)
    await unit.until("b", lambda node: step_of(node) > 0)
    assert neighbour.joined is not None
    assert neighbour.tries == 3
    assert neighbour.joined.step >= 9
    assert again.actor.executor.machine.step >= 9
    assert [await unit.tasks[name] for name in unit.names] == ["completed"] * 3
    audit = unit.audit()
    assert audit.is_exact, audit.findings
    assert audit.minted == 4 * ONE  # of which the evicted one's is lost
    kept = {path.name for path in (again.home.folder / "files" / "artifacts").iterdir()}
    assert kept == {again.actor.executor.model.digest}


async def test_who_joins_waits_for_room_for_a_peers_model_and_says_so(tmp_path: Path) -> None:
    unit, again, neighbour = await rejoined(tmp_path, has_room=False)
    await unit.until("b", lambda node: step_of(node) > 0)
    assert (neighbour.tries, neighbour.stood, again.actor.obstacle) == (3, "no room for a model", "")
    assert neighbour.joined is not None
    for name in unit.names:
        await unit.stop(name)


async def test_a_peers_model_that_is_none_is_passed_over(tmp_path: Path) -> None:
    unit, again, _ = await rejoined(tmp_path, is_broken=True)
    assert [await unit.tasks[name] for name in unit.names] == ["completed"] * 3
    assert np.isfinite(again.model).all()
    assert unit.audit().is_exact


async def test_what_a_peer_was_told_of_stays_for_it_and_nothing_else_is_lent(tmp_path: Path) -> None:
    unit = Unit(tmp_path, spec_of(2, 400), "ab")
    node = unit.start("a")
    with pytest.raises(NotReady):
        node.actor.shelf.newest(Incarnation("b", 2))
    unit.start("b")
    await unit.until("a", functools.partial(has_come_to, 2))
    model, step = node.actor.shelf.newest(Incarnation("b", 2))
    await unit.until("a", functools.partial(has_come_to, step + 10))
    with node.actor.shelf.lend(model.digest) as lent:
        assert artifact_of_file(lent.path) == model
    later, _ = node.actor.shelf.newest(Incarnation("b", 2))  # a peer has one lease
    with pytest.raises(NotFound, match="takes part already"):  # it does not join, so nothing is kept for it
        node.actor.shelf.newest(Incarnation("b"))
    await unit.until("a", lambda node: not node.files.has(model.digest))
    with pytest.raises(NotFound, match="does not have that model any more"), node.actor.shelf.lend(model.digest):
        pass
    assert node.files.has(later.digest)
    for name in unit.names:
        await unit.stop(name)
    with pytest.raises(NotReady):
        node.actor.shelf.newest(Incarnation("b", 2))


async def test_a_node_that_is_asked_to_leave_hands_everything_over(tmp_path: Path) -> None:
    unit = Unit(tmp_path, spec_of(3, 40), "abc")
    for name in unit.names:
        unit.start(name)
    await unit.until("c", lambda node: step_of(node) >= 2)
    ask_to_leave(tmp_path / "c")
    assert await unit.tasks["c"] == "left"
    unit.down("c")
    assert [await unit.tasks[name] for name in "ab"] == ["completed"] * 2
    audit = unit.audit()
    assert audit.is_exact, audit.findings
    assert (audit.live, audit.lost) == (3 * ONE, 0)
    assert read_node(tmp_path / "c").ledger.live == 0


async def test_a_batch_that_cannot_be_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    unit = Unit(tmp_path, spec_of(2, 3), "ab")
    node = unit.start("a")
    await unit.until("a", lambda node: step_of(node) >= 0)
    path = node.files.scratch(0)
    path.write_bytes(b"x" * 32)
    body = artifact_of_file(path)
    for sequence, units, words in ((1, 3 * ONE, "there are"), (7, 5, "does not follow")):
        node.files.adopt(path, body)
        unit.offer("b", node, sequence, units)
        with pytest.raises(LedgerError, match=words):
            await node.actor.arrived(Incarnation("b"), sequence, units, 0, body)
        assert not node.files.has(body.digest)
        path = node.files.scratch(0)
        path.write_bytes(b"x" * 32)
    node.files.adopt(path, body)
    authority.issue(tmp_path / "ca", "stranger", tmp_path / "stranger" / "identity")
    unit.offer("stranger", node, 1, 5)
    with pytest.raises(LedgerError, match="takes no part"):
        await node.actor.arrived(Incarnation("stranger"), 1, 5, 0, body)
    node.actor.heard(Incarnation("b"), PeerSuspected(Incarnation("b"), 0.0))
    await unit.stop("a")


async def test_mass_that_its_sender_did_not_sign_is_not_taken_whatever_it_offers_meanwhile(tmp_path: Path) -> None:
    unit, b = Unit(tmp_path, spec_of(2, 3), "ab"), Incarnation("b")
    node = unit.start("a")
    await unit.until("a", lambda node: step_of(node) >= 0)
    path = node.files.scratch(0)
    path.write_bytes(b"x" * 32)
    body = artifact_of_file(path)
    node.files.adopt(path, body)
    unit.offer("b", node, 1, 7)
    unit.offer("b", node, 2, 7)  # before the first one is handed over
    with pytest.raises(TransferError, match="offer this one again"):
        await node.actor.arrived(b, 1, 999, 0, body)
    assert b not in node.actor.executor.ledger.into
    await unit.stop("a")
    async with asyncio.timeout(60):  # nobody will put it on record any more
        with pytest.raises(TransferError, match="stopping"):
            await node.actor.arrived(b, 2, 7, 0, body)


async def test_whose_batch_belies_its_word_is_named_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unit, b = Unit(tmp_path, spec_of(2, 50, protocol="agp"), "ab"), Incarnation("b")
    node = unit.start("a")
    await unit.until("a", lambda node: step_of(node) >= 0)
    path = node.files.scratch(0)
    path.write_bytes(b"x" * 32)
    body = artifact_of_file(path)
    node.files.adopt(path, body)
    node.worker.trainings = 0
    node.actor.heard(b, Progressed(b, 40, 0, 0, 0, False, 0.0))
    unit.offer("b", node, 1, 7)
    await node.actor.arrived(b, 1, 7, 1, body)
    await unit.stop("a")
    logged = [line for line in capsys.readouterr().out.splitlines() if "claims what it does not prove" in line]
    assert len(logged) == 1
    assert "gave batch 1 of step 1" in logged[0]


async def test_a_farewell_that_is_said_again_and_again_is_on_record_once(tmp_path: Path) -> None:
    unit, b, c = Unit(tmp_path, spec_of(3, 9), "abc"), Incarnation("b"), Incarnation("c")
    node = unit.start("a")
    await unit.until("a", lambda node: step_of(node) >= 0)
    for number in range(20):
        node.actor.heard(b, PeerLeft(b, 0, 0.0))
        node.actor.heard(c, PeerLeft(c, 7 + number, 0.0))  # of more than it was given
    await unit.stop("a")
    engine = open_record(node.home.folder)
    assert len(rows_of(engine, NoteRow)) == 2
    engine.dispose()


async def test_who_leaves_and_denies_what_it_signed_to_have_had_is_named(tmp_path: Path) -> None:
    unit = Unit(tmp_path, spec_of(2, 400), "ab")
    for name in unit.names:
        unit.start(name)
    b = Incarnation("b")

    def has_an_answer(node: UnitNode) -> bool:
        return step_of(node) > 0 and b in (out := node.actor.executor.ledger.out) and out[b].sequence > 1

    await unit.until("a", has_an_answer)
    await unit.stop("b")
    node = unit.nodes[Incarnation("a")]
    node.actor.heard(b, PeerLeft(b, 0, 0.0))
    exchange = node.actor.executor.machine.exchange
    assert "b left, and claims to have had this node's batches up to 0; it signed" in exchange.contradictions[b]
    await unit.stop("a")
    assert read_node(tmp_path / "a").machine.exchange.contradictions == exchange.contradictions
