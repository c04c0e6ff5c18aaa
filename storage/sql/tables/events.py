"""Events and settings in SQL."""

from __future__ import annotations

from sqlalchemy import bindparam, insert, select, update
from typing_extensions import override

from covey.storage.record.contract import EventRecord
from covey.storage.record.events import Events
from covey.storage.sql.database import Database
from covey.storage.sql.mapping import event_record, event_values
from covey.storage.sql.schema import events, settings

_ADD = insert(events)
_NEWEST_FIRST = select(events).order_by(events.c.id.desc())
_SETTING = select(settings.c.value).where(settings.c.key == bindparam("b_key"))
_ADD_SETTING = insert(settings)
_SET = update(settings).where(settings.c.key == bindparam("b_key")).values(value=bindparam("b_value"))


class SqlEvents(Events):
    """The methods of `Store` that concern events and settings."""

    _db: Database

    @override
    def add_event(self, event: EventRecord) -> None:
        with self._db.writing() as connection:
            (number,) = connection.execute(_ADD, event_values(event)).inserted_primary_key or (0,)
            self._db.touched(event.run).events.add(number)

    @override
    def events(
        self, *, run: str = "", node: str = "", kind: str = "", before_id: int = 0, limit: int = 100
    ) -> list[EventRecord]:
        query = _NEWEST_FIRST.limit(limit)
        query = query.where(events.c.id < before_id) if before_id else query
        query = query.where(events.c.run == run) if run else query
        query = query.where(events.c.node == node) if node else query
        query = query.where(events.c.kind == kind) if kind else query
        with self._db.reading() as connection:
            return [event_record(row) for row in connection.execute(query)]

    @override
    def setting(self, key: str) -> str | None:
        with self._db.reading() as connection:
            value: str | None = connection.execute(_SETTING, {"b_key": key}).scalar()
        return value

    @override
    def set_setting(self, key: str, value: str) -> None:
        with self._db.writing() as connection:
            if connection.execute(_SET, {"b_key": key, "b_value": value}).rowcount == 0:
                connection.execute(_ADD_SETTING, {"key": key, "value": value})
