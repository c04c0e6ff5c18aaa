"""Whole lists from pages, each read when it is needed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection

from covey.client.reading.record import Record
from covey.client.reading.translation import detail_of, value_of, values_of
from covey.client.values import Admin, Contribution, Event, Node, Round, RoundDetail, Run, Update
from covey.protos import admin_pb2 as pb

PAGE = 500
"""Entries that are asked for at a time; a page may hold fewer."""


async def runs(record: Record, before: str = "", limit: int | None = None) -> AsyncGenerator[Run]:
    """Runs, the newest first: at most `limit`, submitted before a run (its id)."""
    left = limit
    while left is None or left > 0:
        reply = await record.runs(_page(left), before)
        for message in reply.runs:
            yield value_of(Run, message)
        left, before = _less(left, len(reply.runs)), reply.next
        if not before:
            return


async def rounds(record: Record, run: str, after: int = 0, limit: int | None = None) -> AsyncGenerator[Round]:
    """A run's rounds after a number, in order: at most `limit`."""
    left = limit
    while left is None or left > 0:
        reply = await record.rounds(run, after, _page(left), False)
        for message in reply.rounds:
            yield value_of(Round, message)
        left, after = _less(left, len(reply.rounds)), reply.next
        if not after:
            return


async def gossip_parts(record: Record, run: str) -> AsyncGenerator[pb.GossipPart]:
    """The parts in a gossip run, by node."""
    after = ""
    while True:
        reply = await record.gossip(run, after)
        for part in reply.parts:
            yield part
        after = reply.next
        if not after:
            return


async def newest_rounds(record: Record, run: str, after: int, limit: int) -> AsyncGenerator[Round]:
    """The last `limit` rounds of those after a number, in order; rounds are numbered without gaps."""
    newest = (await record.rounds(run, after, 1, True)).rounds
    if newest:
        async for item in rounds(record, run, max(after, newest[0].round - limit)):
            yield item


async def round_detail(record: Record, run: str, number: int) -> RoundDetail:
    """One round with all of its updates."""
    whole = page = await record.round(run, number, "")
    while page.next:
        page = await record.round(run, number, page.next)
        whole.updates.extend(page.updates)
    return detail_of(whole)


async def updates(
    record: Record, run: str, number: int, nodes: Collection[str] | None = None
) -> AsyncGenerator[Update]:
    """A round's updates by node, a page at a time; with `nodes`, those from the first of them to the last."""
    after, last = (min(nodes)[:-1], max(nodes)) if nodes else ("", None)
    while True:
        page = await record.round(run, number, after)
        for update in values_of(Update, page.updates):
            if last is not None and update.node > last:
                return
            yield update
        after = page.next
        if not after:
            return


async def contributions(record: Record, run: str, after: str = "") -> AsyncGenerator[Contribution]:
    """What each node of a run's roster did in it, in the roster's order; only those after one of them."""
    reply = await record.contributions(run, after)
    while True:
        for contribution in values_of(Contribution, reply.contributions):
            yield contribution
        if not reply.next:
            return
        reply = await record.contributions(run, reply.next)


async def admins(record: Record) -> AsyncGenerator[Admin]:
    """Admins, then auditors, then members of studies, by name."""
    for role in ("admin", "auditor", "member"):
        reply = await record.nodes("", role=role)
        while True:
            for node in reply.nodes:
                yield Admin(node.node, role, node.state, node.enrolled_at, node.certificate_expires_at)
            if not reply.next:
                break
            reply = await record.nodes(reply.next, role=role)


async def nodes(record: Record, after: str = "", limit: int | None = None) -> AsyncGenerator[Node]:
    """Nodes by name: at most `limit`, after one of them (its name)."""
    left = limit
    while left is None or left > 0:
        reply = await record.nodes(after, _page(left))
        for node in values_of(Node, reply.nodes):
            yield node
        left, after = _less(left, len(reply.nodes)), reply.next
        if not after:
            return


async def events(record: Record, run: str, node: str, limit: int | None) -> AsyncGenerator[Event]:
    """Events of a run (its id; empty: of all) or node, the newest first."""
    left, before = limit, 0
    while left is None or left > 0:
        reply: pb.ListEventsReply = await record.events(run, node, before, _page(left))
        for message in reply.events:
            yield value_of(Event, message)
        left, before = _less(left, len(reply.events)), reply.next
        if not before:
            return


def _page(left: int | None) -> int:
    return PAGE if left is None else min(left, PAGE)


def _less(left: int | None, count: int) -> int | None:
    return None if left is None else left - count
