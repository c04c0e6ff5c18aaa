"""Lists from pages: no page is read that nobody needs."""

from __future__ import annotations

from typing import cast

from covey.client.reading.paging import updates
from covey.client.reading.record import Record
from covey.protos import admin_pb2 as pb

PAGE = 10


class Rounds:
    """One round of a hundred nodes, in pages; it counts those that were asked for."""

    def __init__(self) -> None:
        self.names = [f"n{number:02}" for number in range(100)]
        self.pages = 0

    async def round(self, run: str, number: int, after: str) -> pb.RoundDetail:
        self.pages += 1
        names = [name for name in self.names if name > after]
        more = len(names) > PAGE
        page = [pb.Update(node=name) for name in names[:PAGE]]
        return pb.RoundDetail(updates=page, next=names[PAGE - 1] if more else "")


async def names_of(rounds: Rounds, nodes: list[str] | None) -> list[str]:
    return [update.node async for update in updates(cast(Record, rounds), "run", 1, nodes)]


async def test_of_the_nodes_that_are_wanted_only_the_pages_between_them_are_read() -> None:
    rounds = Rounds()
    names = await names_of(rounds, ["n45", "n41"])
    assert {"n41", "n45"} <= set(names)
    assert rounds.pages == 1
    assert (await names_of(rounds, ["n99"]))[-1] == "n99"


async def test_all_of_them_are_read_page_by_page() -> None:
    rounds = Rounds()
    assert await names_of(rounds, None) == rounds.names
    assert rounds.pages == len(rounds.names) / PAGE
