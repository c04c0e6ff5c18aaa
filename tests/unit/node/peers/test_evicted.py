"""Notices on disk: they count again after a restart, and what does not count is passed over."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import update

from covey.errors import Conflict, IdentityError, NotFound
from covey.gossip.ledger import Incarnation
from covey.node.gossip.folders import reside
from covey.node.gossip.record.schema import RunRow
from covey.node.gossip_part import GossipPart, Terms
from covey.node.operator.config import NodeConfig
from covey.node.peers.evicted import Evicted
from covey.node.peers.roster import Member, Roster
from covey.wire.evictions import FOR_GOOD, ONCE, EvictionStatement, sign_eviction
from tests.unit.node.gossip.nodes import spec_of

ADA = Incarnation("ada")


@pytest.fixture
def notice(identity):
    admin = identity("root", "admin")

    def make(node="ada", number=1, run="digits", reason="lost its disk", kind=ONCE):
        statement = EvictionStatement(admin.federation, run, node, number, reason, time.time(), covey=kind)
        return sign_eviction(statement, admin.key_pem, admin.certificate_pem)

    return make


@pytest.fixture
def opened(tmp_path, authority):
    def make():
        made = Evicted(tmp_path / "evictions", "digits", {"ada", "bob"}.__contains__, authority.pem)
        made.load()
        return made

    return make


def test_a_notice_is_known_after_a_restart(opened, notice):
    signed = notice()
    who, statement = opened().take(signed)
    assert (who, statement.reason) == (ADA, "lost its disk")
    again = opened()
    assert list(again) == [ADA]
    assert again.notice_of(ADA) == signed
    assert (again.notices_of(ADA), again.notices_of(Incarnation("ada", 2))) == ([signed], [])
    with pytest.raises(IdentityError, match="ada is evicted: lost its disk; it may come back as a new incarnation"):
        again.refuse(ADA)
    again.refuse(Incarnation("ada", 2))


def test_of_several_notices_about_one_incarnation_the_first_counts(opened, notice, tmp_path):
    evicted, first = opened(), notice()
    assert evicted.take(first) is not None
    assert evicted.take(first) is None
    assert evicted.take(notice(reason="another one")) is None
    assert evicted.notices() == [first]
    assert len(list((tmp_path / "evictions").iterdir())) == 1


def test_for_good_means_every_incarnation_also_after_a_restart_and_beside_notices_about_one(opened, notice):
    evicted, once, final = opened(), notice(), notice(reason="it lies", kind=FOR_GOOD)
    assert evicted.take(once) is not None
    evicted.refuse_for_good("ada")
    assert evicted.take(final) is not None
    assert evicted.take(final) is None
    assert evicted.take(notice(number=7, reason="again", kind=FOR_GOOD)) is None
    for known in (evicted, opened()):
        assert known.notices() == [once, final]
        assert (list(known), known.for_good) == ([ADA], ["ada"])
        assert (known.notices_of(ADA), known.notices_of(Incarnation("ada", 2))) == ([once, final], [final])
        for number in (1, 2, 1_000_000):
            assert Incarnation("ada", number) in known
            assert known.notice_of(Incarnation("ada", number)) == final
            with pytest.raises(IdentityError, match="ada is evicted for good: it lies; no incarnation of it"):
                known.refuse(Incarnation("ada", number))
        with pytest.raises(IdentityError, match="for good"):
            known.refuse_for_good("ada")
        known.refuse(Incarnation("bob"))
        assert Incarnation("bob") not in known


async def test_who_is_out_for_good_is_not_told_to_rejoin(notice, identity, authority, tmp_path):
    spec, members = spec_of(2, 3), {name: Member(name) for name in ("ada", "bob")}
    home = reside(tmp_path, spec, "ada", members, rejoins=False)
    with home.engine.begin() as connection:
        connection.execute(update(RunRow).values(ended="evicted"))
    home.engine.dispose()
    worker: Any = None
    part = GossipPart(Terms(NodeConfig(tmp_path), spec, "unit"), identity("ada"), Roster(members), worker)
    with pytest.raises(Conflict, match="start again with --rejoin"):
        await part.run(asyncio.Event())
    known = Evicted(tmp_path / "gossip" / "unit" / "evictions", "unit", members.__contains__, authority.pem)
    known.take(notice(run="unit", kind=FOR_GOOD))
    with pytest.raises(IdentityError, match="no incarnation of it takes part in this run any more"):
        await part.run(asyncio.Event())


def test_a_notice_that_comes_from_several_peers_at_once_is_taken_once(opened, notice):
    evicted, signed = opened(), notice()
    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(evicted.take, [signed] * 32))
    assert sum(each is not None for each in taken) == 1


def test_another_run_and_strangers_are_no_business_of_ours(opened, notice, tmp_path):
    evicted = opened()
    for other in (notice(run="letters"), notice(node="eve")):
        with pytest.raises(NotFound):
            evicted.take(other)
    assert list((tmp_path / "evictions").iterdir()) == []


def test_a_file_that_cannot_be_a_notice_is_passed_over(opened, notice, tmp_path):
    opened().take(notice())
    (tmp_path / "evictions" / "broken.eviction").write_bytes(b"\xff" * 100)
    (tmp_path / "evictions" / "empty.eviction").write_bytes(b"")
    assert list(opened()) == [ADA]
