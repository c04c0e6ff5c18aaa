"""Signed updates in SQL: in pages for an audit, and each node's newest one that was judged."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Text, and_, bindparam, or_, select
from typing_extensions import override

from covey.storage.record.contract import SignedUpdateRecord, UpdateRecord
from covey.storage.record.updates import Updates
from covey.storage.sql.database import Database
from covey.storage.sql.dialects import ByCodePoint, TextsOfJson
from covey.storage.sql.engine import dump_json
from covey.storage.sql.mapping import PHASE, UPDATE_COLUMNS, signed_record, update_record
from covey.storage.sql.schema import assignments, groups, keys

_IN_RUN = assignments.c.run == bindparam("b_run")
_node = ByCodePoint(assignments.c.node)
_AFTER = and_(
    assignments.c.group_number >= bindparam("b_round"),
    or_(assignments.c.group_number > bindparam("b_round"), _node > bindparam("b_node")),
)
_SIGNED = (
    select(*UPDATE_COLUMNS, assignments.c.base_version, keys.c.public_key.label("signing_key"))
    .outerjoin(keys, keys.c.key_id == assignments.c.key_id)
    .where(_IN_RUN, assignments.c.digest != "", _AFTER)
    .order_by(assignments.c.group_number, _node, assignments.c.phase)
)
_OTHER_PHASES = _SIGNED.where(
    assignments.c.group_number == bindparam("b_last_round"),
    assignments.c.node == bindparam("b_last_node"),
    assignments.c.phase > bindparam("b_last_phase"),
)
_names = TextsOfJson(bindparam("b_roster", type_=Text)).table_valued("value", name="names")
_earlier = assignments.alias()
_number = (
    select(_earlier.c.group_number)
    .join(groups, and_(groups.c.run == _earlier.c.run, groups.c.number == _earlier.c.group_number))
    .where(
        _earlier.c.node == _names.c.value,
        _earlier.c.run == bindparam("b_run"),
        _earlier.c.verdict.in_(("accepted", "rejected")),
        _earlier.c.digest != "",
        groups.c.state.in_(("committed", "decided")),
    )
    .order_by(_earlier.c.group_number.desc())
    .limit(1)
    .correlate(_names)
    .scalar_subquery()
)
# Looked up once for each name, from the newest round on; a planner that is free to would rather read the whole run.
_newest = select(_names.c.value.label("node"), _number.label("number")).cte("newest").prefix_with("MATERIALIZED")
_NEWEST_VERDICTS = (
    select(*UPDATE_COLUMNS)
    .select_from(_newest)
    .join(assignments, and_(assignments.c.node == _newest.c.node, assignments.c.group_number == _newest.c.number))
    .where(_IN_RUN, assignments.c.phase == PHASE)
)


class SqlSigned(Updates):
    """The methods of `Store` that read updates across rounds."""

    _db: Database

    @override
    def signed_updates(
        self, run: str, after: tuple[int, str] = (0, ""), limit: int | None = None
    ) -> list[SignedUpdateRecord]:
        query = _SIGNED if limit is None else _SIGNED.limit(limit)
        where = {"b_run": run, "b_round": after[0], "b_node": after[1]}
        with self._db.reading() as connection:
            page = [signed_record(row) for row in connection.execute(query, where)]
            if page and limit is not None:
                last = {"b_last_round": page[-1].round, "b_last_node": page[-1].node, "b_last_phase": page[-1].phase}
                page += map(signed_record, connection.execute(_OTHER_PHASES, where | last))
            return page

    @override
    def newest_verdicts(self, run: str, roster: Sequence[str]) -> dict[str, UpdateRecord]:
        where = {"b_run": run, "b_roster": dump_json(sorted(set(roster)))}
        with self._db.reading() as connection:
            newest = [update_record(row) for row in connection.execute(_NEWEST_VERDICTS, where)]
        return {update.node: update for update in newest}
