"""Identities, their keys and join tokens in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from sqlalchemy import Connection, and_, bindparam, func, insert, or_, select, union, update
from typing_extensions import override

from covey.errors import Conflict, NotFound
from covey.storage.record.contract import NodeRecord, RedemptionRecord, Role, TokenRecord
from covey.storage.record.identities import Identities
from covey.storage.sql.database import Database
from covey.storage.sql.dialects import ByCodePoint
from covey.storage.sql.mapping import node_record, node_values, redemption_record, token_record, token_values
from covey.storage.sql.schema import keys, nodes, redemptions, tokens
from covey.storage.sql.tables.tallies import tallies

_ADD_TOKEN = insert(tokens)
_USED = (
    select(func.count())
    .select_from(redemptions)
    .where(redemptions.c.secret_sha256 == tokens.c.secret_sha256)
    .scalar_subquery()
)
_WITH_USED = select(tokens, _USED.label("used"))
_TOKEN = _WITH_USED.where(tokens.c.secret_sha256 == bindparam("b_secret"))
_TOKENS = _WITH_USED.order_by(tokens.c.created_at.desc(), tokens.c.secret_sha256)
_MEANT = and_(
    tokens.c.uses > _USED,
    tokens.c.expires_at > 0,
    or_(tokens.c.name == bindparam("b_token"), tokens.c.secret_sha256.like(bindparam("b_prefix"))),
)
_UNUSED = _WITH_USED.where(_MEANT).order_by(tokens.c.secret_sha256)
_EXPIRE = update(tokens).where(_MEANT).values(expires_at=0.0)
_REDEMPTION = select(redemptions).where(
    redemptions.c.secret_sha256 == bindparam("b_secret"), redemptions.c.csr_key_sha256 == bindparam("b_key")
)
_REDEEM = insert(redemptions)
_NUMBERED = union(
    select(nodes.c.node.label("name")).where(nodes.c.node.like(bindparam("b_prefix"))),
    select(tokens.c.name).where(tokens.c.name.like(bindparam("b_prefix"))),
)
_ADD_NODE = insert(nodes)
_WHERE = nodes.c.node == bindparam("b_node")
_UPDATE = update(nodes).where(_WHERE)
_SEEN = _UPDATE.values(last_seen_at=bindparam("b_at"))
_STATE = select(nodes.c.state).where(_WHERE)
_KEY = select(keys).where(keys.c.key_id == bindparam("b_key_id"))
_ADD_KEY = insert(keys)
_RETIRE_KEYS = (
    update(keys)
    .where(keys.c.node == bindparam("b_node"), keys.c.key_id != bindparam("b_key_id"), keys.c.valid_until.is_(None))
    .values(valid_until=bindparam("b_at"))
)
_REINSTATE_KEY = update(keys).where(keys.c.key_id == bindparam("b_key_id")).values(valid_until=None)
_WITH_KEY = select(nodes, keys.c.public_key.label("signing_key")).outerjoin(keys, keys.c.key_id == nodes.c.key_id)
_ONE = _WITH_KEY.where(_WHERE)
_by_name = ByCodePoint(nodes.c.node)
_OF_ROLE = _WITH_KEY.where(nodes.c.role == bindparam("b_role"), _by_name > bindparam("b_after")).order_by(_by_name)


class SqlIdentities(Identities):
    """The methods of `Store` that concern identities and tokens."""

    _db: Database

    @override
    def add_token(self, token: TokenRecord) -> None:
        with self._db.writing() as connection:
            if connection.execute(_TOKEN, {"b_secret": token.secret_sha256}).one_or_none() is not None:
                raise Conflict("this token is recorded already")
            connection.execute(_ADD_TOKEN, token_values(token))

    @override
    def token(self, secret_sha256: str) -> TokenRecord:
        with self._db.reading() as connection:
            return _token(connection, secret_sha256)

    @override
    def tokens(self, *, skip: int = 0, limit: int | None = None) -> list[TokenRecord]:
        query = _TOKENS.offset(skip) if limit is None else _TOKENS.offset(skip).limit(limit)
        with self._db.reading() as connection:
            return [token_record(row) for row in connection.execute(query)]

    @override
    def revoke_tokens(self, token: str) -> list[TokenRecord]:
        with self._db.writing() as connection:
            meant = {"b_token": token, "b_prefix": token + "%"}
            records = [token_record(row) for row in connection.execute(_UNUSED, meant)]
            if not records:
                raise NotFound(f"no token with uses left is {token!r}, or for this name; see the list of tokens")
            connection.execute(_EXPIRE, meant)
            return [replace(record, expires_at=0.0) for record in records]

    @override
    def redemption(self, secret_sha256: str, csr_key_sha256: str) -> RedemptionRecord | None:
        with self._db.reading() as connection:
            return _redemption(connection, secret_sha256, csr_key_sha256)

    @override
    def next_name(self, prefix: str) -> str:
        with self._db.reading() as connection:
            names = connection.execute(_NUMBERED, {"b_prefix": f"{prefix}-%"}).scalars().all()
        numbers = [name.removeprefix(f"{prefix}-") for name in names]
        return f"{prefix}-{max((int(number) for number in numbers if number.isdecimal()), default=0) + 1}"

    @override
    def redeem_token(
        self, secret_sha256: str, csr_key_sha256: str, certificate: bytes, node: NodeRecord
    ) -> RedemptionRecord:
        # A transaction that writes holds the lease's row from its beginning: no two of them count at once.
        with self._db.writing() as connection:
            token = _token(connection, secret_sha256)
            if (redemption := _redemption(connection, secret_sha256, csr_key_sha256)) is not None:
                return redemption
            if token.uses_left <= 0:
                raise Conflict("this token was used with other keys; ask the coordinator's operator for a new one")
            if not _is_for(token, node.node):
                raise Conflict(f"this token is for {token.name!r}, not for {node.node!r}")
            _enrol(connection, node, secret_sha256)
            record = RedemptionRecord(secret_sha256, csr_key_sha256, node.node, certificate)
            connection.execute(_REDEEM, vars(record))
            return record

    @override
    def renew_node(
        self,
        node: str,
        serial: str,
        expires_at: float,
        signing_key: bytes,
        key_id: str,
        at: float,
        *,
        previous_serial: str = "",
    ) -> None:
        certificate = {"certificate_serial": serial, "certificate_expires_at": expires_at}
        with self._db.writing() as connection:
            _set(connection, node, **certificate, previous_serial=previous_serial, key_id=key_id)
            _use_key(connection, node, signing_key, key_id, at)

    @override
    def settle_node(self, node: str) -> None:
        with self._db.writing() as connection:
            _set(connection, node, previous_serial="")

    @override
    def signing_key(self, key_id: str) -> bytes:
        with self._db.reading() as connection:
            row = connection.execute(_KEY, {"b_key_id": key_id}).one_or_none()
        if row is None:
            raise NotFound(f"there is no signing key {key_id!r}")
        return bytes(row.public_key)

    @override
    def node(self, node: str) -> NodeRecord:
        with self._db.reading() as connection:
            row = connection.execute(_ONE, {"b_node": node}).mappings().one_or_none()
            if row is None:
                raise _no_node(node)
            counts = tallies(connection, [node])[node]
        return node_record({**row, **counts.of_node})

    @override
    def nodes(self, *, role: Role = "node", after: str = "", limit: int | None = None) -> list[NodeRecord]:
        query = _OF_ROLE if limit is None else _OF_ROLE.limit(limit)
        with self._db.reading() as connection:
            rows = connection.execute(query, {"b_role": role, "b_after": after}).mappings().all()
            counts = tallies(connection, [row["node"] for row in rows])
        return [node_record({**row, **counts[row["node"]].of_node}) for row in rows]

    @override
    def seen(
        self, node: str, at: float, *, version: str = "", device: str = "", tasks: Sequence[str] | None = None
    ) -> None:
        changes: dict[str, Any] = {"version": version} if version else {}
        changes |= {"device": device} if device else {}
        changes |= {"tasks": list(tasks)} if tasks is not None else {}
        with self._db.writing() as connection:
            _set(connection, node, last_seen_at=at, **changes)

    @override
    def note_seen(self, times: Mapping[str, float]) -> None:
        if not times:
            return
        with self._db.writing() as connection:
            connection.execute(_SEEN, [{"b_node": node, "b_at": at} for node, at in times.items()])

    @override
    def set_node_state(self, node: str, state: Literal["active", "evicted", "left"]) -> None:
        with self._db.writing() as connection:
            _set(connection, node, state=state)


def _no_node(node: str) -> NotFound:
    return NotFound(f"no identity is named {node!r}; `covey node list` shows the nodes there are")


def _set(connection: Connection, node: str, **values: Any) -> None:
    if connection.execute(_UPDATE.values(**values), {"b_node": node}).rowcount == 0:
        raise _no_node(node)


def _token(connection: Connection, secret_sha256: str) -> TokenRecord:
    row = connection.execute(_TOKEN, {"b_secret": secret_sha256}).one_or_none()
    if row is None:
        raise NotFound("this join token is not known here; ask the operator for a new one")
    return token_record(row)


def _redemption(connection: Connection, secret_sha256: str, csr_key_sha256: str) -> RedemptionRecord | None:
    row = connection.execute(_REDEMPTION, {"b_secret": secret_sha256, "b_key": csr_key_sha256}).one_or_none()
    return None if row is None else redemption_record(row)


def _is_for(token: TokenRecord, name: str) -> bool:
    if token.uses == 1:
        return token.name in ("", name)
    prefix, _, number = name.rpartition("-")
    return prefix == token.name and number.isdecimal()


def _enrol(connection: Connection, node: NodeRecord, token: str) -> None:
    state = connection.execute(_STATE, {"b_node": node.node}).scalar()
    values = node_values(node) | {"token": token}
    if state is None:
        connection.execute(_ADD_NODE, values)
    elif state == "active":
        raise Conflict(f"{node.node!r} is enrolled already; evict it first, or join under another name")
    else:
        _set(connection, values.pop("node"), **values)
    _use_key(connection, node.node, node.signing_key, node.key_id, node.enrolled_at)


def _use_key(connection: Connection, node: str, public_key: bytes, key_id: str, at: float) -> None:
    """Make a key the node's present one; those before it end now. Without an id it has none."""
    connection.execute(_RETIRE_KEYS, {"b_node": node, "b_key_id": key_id, "b_at": at})
    if not key_id:
        return
    row = connection.execute(_KEY, {"b_key_id": key_id}).one_or_none()
    if row is None:
        values = {"key_id": key_id, "node": node, "public_key": public_key, "valid_from": at, "valid_until": None}
        connection.execute(_ADD_KEY, values)
    elif (row.node, bytes(row.public_key)) != (node, public_key):
        raise Conflict(f"signing key {key_id} belongs to another identity")
    else:
        connection.execute(_REINSTATE_KEY, {"b_key_id": key_id})
