"""Conformance of a store: members of gossip runs, and what they signed."""

# ruff: noqa: D102 (a test's name says what it checks)

from __future__ import annotations

from dataclasses import replace

from covey.storage.record.contract import GossipMemberRecord, GossipStatementRecord, Store
from covey.testing.store import records as make

MEMBERS = [GossipMemberRecord("run-1", node, f"{node}.example:7410", make.sha256(node)) for node in make.NODES]


def statement(node: str, incarnation: int, number: int, run: str = "run-1") -> GossipStatementRecord:
    """A statement, each unlike every other one."""
    text = f"{node} {incarnation} {number}".encode()
    return GossipStatementRecord(run, node, incarnation, number, number, number + 1, "key", 5.5, text, text[::-1])


def start(store: Store, run: str = "run-1") -> None:
    """A running gossip run."""
    store.add_run(make.run_record(run, mode="gossip"))
    store.start_run(run, make.NODES, 3, make.LAYOUT, make.version_record(run, 0), 1001.0)


class GossipConformance:
    """From who takes part to the last statement."""

    def test_members_are_what_was_said_of_them_last(self, store: Store) -> None:
        start(store)
        store.set_gossip_members(MEMBERS)
        assert store.gossip_members("run-1") == MEMBERS
        out = replace(MEMBERS[1], state="declined", reason="policy: no", address="")
        store.set_gossip_members([out])
        assert store.gossip_members("run-1") == [MEMBERS[0], out, MEMBERS[2]]
        assert store.gossip_members("run-1", after=MEMBERS[0].node, limit=1) == [out]
        assert store.gossip_members("run-2") == []

    def test_the_newest_statement_is_that_of_the_newest_incarnation(self, store: Store) -> None:
        start(store)
        for row in (statement("ada", 1, 1), statement("ada", 1, 2), statement("bob", 1, 1), statement("ada", 2, 1)):
            store.add_gossip_statement(row, most=10)
        assert store.newest_gossip_statements("run-1") == [statement("ada", 2, 1), statement("bob", 1, 1)]
        assert store.newest_gossip_statements("run-1", ["bob", "cyd"]) == [statement("bob", 1, 1)]
        assert store.newest_gossip_statements("run-2") == []
        assert store.gossip_step("run-1") == 1
        assert store.gossip_step("run-2") == 0
        assert store.gossip_statements("run-1", "ada") == [
            statement("ada", 1, 1),
            statement("ada", 1, 2),
            statement("ada", 2, 1),
        ]

    def test_a_statement_is_put_on_record_once_and_only_so_many_stay(self, store: Store) -> None:
        start(store)
        for number in range(1, 8):
            for _ in range(2):
                store.add_gossip_statement(statement("ada", 1, number), most=3)
        store.add_gossip_statement(statement("bob", 1, 1), most=3)
        assert [row.number for row in store.gossip_statements("run-1", "ada")] == [1, 5, 6, 7]
        assert [row.number for row in store.gossip_statements("run-1", "bob")] == [1]

    def test_both_go_with_their_run(self, store: Store) -> None:
        start(store)
        store.set_gossip_members(MEMBERS)
        store.add_gossip_statement(statement("ada", 1, 1), most=3)
        store.finish_run("run-1", "stopped", "", 1002.0)
        store.delete_run("run-1")
        assert store.gossip_members("run-1") == [] == store.gossip_statements("run-1", "ada")
