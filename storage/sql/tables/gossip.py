"""Gossip runs in SQL: their members, and what these signed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import and_, bindparam, delete, func, insert, select, update
from typing_extensions import override

from covey.storage.record.contract import GossipMemberRecord, GossipStatementRecord
from covey.storage.record.gossip import Gossip
from covey.storage.sql.database import Database
from covey.storage.sql.schema import gossip_members, gossip_statements

_SAID = gossip_statements.c
_OF_INCARNATION = (
    _SAID.run == bindparam("b_run"),
    _SAID.node == bindparam("b_node"),
    _SAID.incarnation == bindparam("b_incarnation"),
)
_IS_THERE = select(_SAID.number).where(*_OF_INCARNATION, _SAID.number == bindparam("b_number"))
_TOO_OLD = delete(gossip_statements).where(
    *_OF_INCARNATION, _SAID.number > 1, _SAID.number <= bindparam("b_oldest", type_=_SAID.number.type)
)


class SqlGossip(Gossip):
    """The methods of `Store` that concern gossip runs."""

    _db: Database

    @override
    def set_gossip_members(self, members: Sequence[GossipMemberRecord]) -> None:
        with self._db.writing() as connection:
            for member in members:
                self._db.touched(member.run).members.add(member.node)
                values = asdict(member)
                row = and_(gossip_members.c.run == member.run, gossip_members.c.node == member.node)
                if connection.execute(update(gossip_members).where(row).values(values)).rowcount == 0:
                    connection.execute(insert(gossip_members).values(values))

    @override
    def gossip_members(self, run: str, *, after: str = "", limit: int | None = None) -> list[GossipMemberRecord]:
        query = select(gossip_members).where(gossip_members.c.run == run, gossip_members.c.node > after)
        with self._db.reading() as connection:
            rows = connection.execute(query.order_by(gossip_members.c.node).limit(limit)).mappings()
            return [GossipMemberRecord(**row) for row in rows]

    @override
    def add_gossip_statement(self, statement: GossipStatementRecord, *, most: int) -> None:
        of = {"b_run": statement.run, "b_node": statement.node, "b_incarnation": statement.incarnation}
        with self._db.writing() as connection:
            if connection.execute(_IS_THERE, of | {"b_number": statement.number}).one_or_none() is None:
                connection.execute(insert(gossip_statements).values(asdict(statement)))
                connection.execute(_TOO_OLD, of | {"b_oldest": statement.number - most})

    @override
    def newest_gossip_statements(self, run: str, nodes: Sequence[str] | None = None) -> list[GossipStatementRecord]:
        wanted = [_SAID.run == run] + ([_SAID.node.in_(nodes)] if nodes is not None else [])
        order = func.row_number().over(
            partition_by=_SAID.node, order_by=(_SAID.incarnation.desc(), _SAID.number.desc())
        )
        ranked = select(gossip_statements, order.label("rank")).where(*wanted).subquery()
        query = select(*(ranked.c[column.name] for column in gossip_statements.c)).where(ranked.c.rank == 1)
        with self._db.reading() as connection:
            rows = connection.execute(query.order_by(ranked.c.node)).mappings()
            return [GossipStatementRecord(**row) for row in rows]

    @override
    def gossip_step(self, run: str) -> int:
        furthest = select(func.max(_SAID.step).label("step")).where(_SAID.run == run).group_by(_SAID.node).subquery()
        with self._db.reading() as connection:
            return int(connection.execute(select(func.min(furthest.c.step))).scalar() or 0)

    @override
    def gossip_statements(self, run: str, node: str) -> list[GossipStatementRecord]:
        query = select(gossip_statements).where(_SAID.run == run, _SAID.node == node)
        with self._db.reading() as connection:
            rows = connection.execute(query.order_by(_SAID.incarnation, _SAID.number)).mappings()
            return [GossipStatementRecord(**row) for row in rows]
