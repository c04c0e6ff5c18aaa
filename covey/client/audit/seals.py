"""Comparing a run's rows with its seals (`covey.storage.record.seals`)."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from covey.client.audit.rows import AuditedRun, Row
from covey.client.values import ENDED
from covey.errors import CoveyError, IdentityError
from covey.storage.record.seals import DOMAIN, KIND, SEALED, bytes_in, sealed
from covey.wire.identities.signing import verify

Key = tuple[Any, ...]
OPEN = ("collecting", "aggregating")
NAMES = {
    "runs": "the run",
    "groups": "round {0}",
    "assignments": "round {0}, update of {2}",
    "model_versions": "version {0}",
    "steps": "step {0}",
    "events": "event {0}",
    "gossip_members": "member {0}",
}
SEALED_COMMIT = b'"covey":"commit/2"'
"""In a commit of a run whose rows are sealed; statements are canonical JSON, in which no text has bare quotes."""
MOST_SHOWN = 60
"""Characters of a value in a finding."""


@dataclass
class Chain:
    """What a chain of seals says.

    Attributes:
        count: How many there are.
        rows: Of each table what each row was when it was sealed last.
        before: See `covey.storage.record.seals.Facts`.
        end: Likewise.
    """

    count: int = 0
    rows: dict[str, dict[Key, Mapping[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    before: Mapping[str, int] = field(default_factory=dict)
    end: Mapping[str, Any] = field(default_factory=dict)
    _answers: dict[Key, set[Key]] = field(default_factory=lambda: defaultdict(set))
    """The keys of the assignments by group: a long run has very many of both."""

    def add(self, statement: Mapping[str, Any]) -> None:
        """Take the next seal."""
        self.count += 1
        self.before = statement.get("before", self.before)
        self.end = statement.get("end", self.end)
        answers = self.rows["assignments"]
        again = {tuple(row["key"]) for row in statement["rows"] if row["table"] == "groups"}
        for number in again:  # a group is sealed with all of its answers
            for key in self._answers.pop(number, ()):
                del answers[key]
        for row in statement["rows"]:
            key = tuple(row["key"])
            self.rows[row["table"]][key] = row
            if row["table"] == "assignments":
                self._answers[key[:1]].add(key)


def check_seals(audited: AuditedRun, federation: str, key: bytes) -> tuple[list[str], list[str]]:
    """Everything that is wrong with the rows of a run, and what of it no seal covers."""
    name = str(audited.run.get("run", ""))
    problems: list[str] = []
    chain = _chain(audited.rows["seals"], federation, name, key, problems)
    problems += _compared(chain, audited.rows, ended=audited.run.get("state") in ENDED)
    problems += _end(chain, audited)
    statements = [bytes_in(row.get("statement")) or b"" for row in audited.rows["model_versions"]]
    if not chain.count and any(SEALED_COMMIT in statement for statement in statements):
        problems.append("the run's rows were sealed, as its commits say, but no seal is on record")
    common = _chain(audited.common["seals"], federation, "", key, problems)
    differences = _compared(common, {"events": audited.common["events"]}, ended=False)
    problems += [f"{text} (an event of no run)" for text in differences]
    return problems, list(_uncovered(chain, audited))


def _chain(rows: Iterable[Row], federation: str, run: str, key: bytes, problems: list[str]) -> Chain:
    chain, parent = Chain(), ""
    for number, row in enumerate(sorted(rows, key=lambda row: str(row.get("number")).zfill(20)), start=1):
        statement, signature = bytes_in(row.get("statement")), bytes_in(row.get("signature"))
        try:
            if statement is None or signature is None:
                raise IdentityError("its bytes are something else")
            verify(key, statement, signature, DOMAIN)
            sealed = json.loads(statement)
            links = (sealed["covey"], sealed["federation"], sealed["run"], sealed["number"], sealed["parent"])
            if links != (KIND, federation, run, number, parent) or row.get("number") != number:
                raise IdentityError("it does not follow from the one before it")
            chain.add(sealed)
        except (CoveyError, ValueError, TypeError, KeyError) as error:
            what = error if isinstance(error, CoveyError) else "it is not readable"
            problems.append(f"seal {row.get('number')}{f' of run {run}' if run else ''}: {what}")
        parent = hashlib.sha256(statement or b"").hexdigest()
    return chain


def _compared(chain: Chain, rows: Mapping[str, list[Row]], *, ended: bool) -> Iterator[str]:
    if not chain.count:
        return
    tables: dict[str, dict[Key, Row]] = {}
    for table in SEALED:
        shown = [sealed(table, row) for row in rows.get(table, ())]
        tables[table] = {_key(row["key"]): row for row in shown}
        if len(tables[table]) != len(shown):
            yield f"{table}: a row is there twice"
        for key, row in tables[table].items():
            signed = chain.rows[table].get(key)
            if signed is not None:
                yield from _different(table, key, row, signed)
    for table in SEALED:
        for key in tables[table].keys() - chain.rows[table].keys():
            if not _may_be_unsealed(table, key, tables, chain, ended):
                yield f"{_named(table, key)} is on record, but was never sealed"
        for key in chain.rows[table].keys() - tables[table].keys():
            yield f"{_named(table, key)} was sealed, but is not on record"


def _different(table: str, key: Key, shown: Row, signed: Row) -> Iterator[str]:
    names = sorted({*shown["values"], *shown["digests"], *signed["values"], *signed["digests"]})
    for name in names:
        now, then = _value(shown, name), _value(signed, name)
        if now != then or type(now) is not type(then):
            yield f"{_named(table, key)}: {name} is {_short(now)} on record, but was sealed as {_short(then)}"


def _value(row: Row, name: str) -> object:
    """A column's value; of a long one its digest, which no value is equal to."""
    return ("digest", row["digests"][name]) if name in row["digests"] else row["values"].get(name)


def _may_be_unsealed(table: str, key: Key, tables: Mapping[str, Mapping[Key, Row]], chain: Chain, ended: bool) -> bool:
    """What is not over yet, and what is from before there were seals."""
    if table == "assignments":
        group = key[:1]
        return (
            group not in chain.rows["groups"]
            and group in tables["groups"]
            and (_may_be_unsealed("groups", group, tables, chain, ended))
        )
    if table not in ("groups", "model_versions", "steps", "events"):
        return False
    (number,) = key
    if isinstance(number, int) and number <= chain.before.get(table, -1):
        return True
    return table == "groups" and not ended and tables["groups"][key]["values"].get("state") in OPEN


def _end(chain: Chain, audited: AuditedRun) -> Iterator[str]:
    if chain.count and not chain.end and audited.run.get("state") in ENDED and "runs" in chain.rows:
        yield "the run has ended on record, but its end was never sealed"
    if not chain.end:
        return
    if audited.run.get("state") != chain.end.get("state"):
        yield f"the run was sealed as {chain.end.get('state')}, but is {audited.run.get('state')} on record"
    for table, count in chain.end.get("rows", {}).items():
        if len(audited.rows[table]) != count:
            yield f"the run ended with {count} rows of {table}, and {len(audited.rows[table])} are on record"


def check_states(audited: AuditedRun) -> Iterator[str]:
    """Whether the policy's states that are on record are those of the digests beside them."""
    for row in audited.rows["steps"]:
        state = row.get("state")
        if state != "" and hashlib.sha256(str(state).encode()).hexdigest() != row.get("state_sha256"):
            yield f"step {_printable(row.get('number'))}: its state is not the one of its digest"


def _uncovered(chain: Chain, audited: AuditedRun) -> Iterator[str]:
    if not chain.count:
        yield (
            "this run is from a version that sealed no rows: commits and updates are checked by their own statements, "
            "which do not cover specification, seed, roster, times, weights, numbers, metrics, what was not committed, "
            "events and the run's end"
        )
        return
    last = chain.before.get("groups", -1)
    if chain.before:
        yield (
            f"rounds up to {max(last, 0)} are from a version that sealed no rows: of these, commits and updates are "
            "checked by their own statements"
        )
    still = [row for row in audited.rows["groups"] if row.get("state") in OPEN]
    if still:
        yield f"{len(still)} rounds are open; they are sealed when they end"


def _key(values: list[Any]) -> Key:
    return tuple(value if isinstance(value, str | int) else _short(value) for value in values)


def _named(table: str, key: Key) -> str:
    return NAMES[table].format(*map(_printable, key))


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return f"another value (SHA-256 {str(value[1])[-64:][:12]})"
    text = _printable(json.dumps(value))
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "..."


def _printable(value: object) -> str:
    return "".join(char if char.isprintable() else " " for char in str(value))
