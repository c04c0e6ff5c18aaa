"""Which rounds of a run have changed, for one who watches it."""

from __future__ import annotations

from collections.abc import Iterator

from covey.coordinator.admin import views
from covey.coordinator.admin.pages import fitting
from covey.protos import admin_pb2 as pb
from covey.storage.record.contract import RoundRecord, Store


class WatchedRounds:
    """Which rounds of a run have changed since this was last asked, without reading all of them each time.

    The first time the newest `WINDOW` rounds are told, and those before that are still open: who wants older ones asks
    for them. After that, rounds up to a mark have ended, but for a few; these and the rounds after the mark are read
    again. A round changes after its end when its version is evaluated: the mark is `RECENT` rounds behind the newest,
    and what comes later still is seen when the run has ended, when the newest `WINDOW` are read once more. So no look
    takes longer because a run is long.
    """

    RECENT = 32
    PAGE = 200
    WINDOW = 1000

    def __init__(self, store: Store, run: str) -> None:
        self._store, self._run = store, run
        self._told: dict[int, int] = {}
        """Round to the hash of what was told of it."""
        self._unsettled: set[int] = set()
        self._newest = 0

    def changes(self, *, last: bool = False) -> Iterator[list[pb.Round]]:
        """What changed, in lists that fit a message; some are empty. `last`: the run has ended."""
        if not self._newest:
            self._look_first()
        behind = self.WINDOW if last or not self._told else max(self.RECENT, 2 * len(self._unsettled))
        mark = max(0, self._newest - behind)
        stragglers = [self._store.round(self._run, number) for number in sorted(self._unsettled) if number <= mark]
        page = stragglers + self._store.rounds(self._run, after=mark, limit=self.PAGE)
        while page:
            rounds, _ = fitting((views.round_view(record) for record in page), len(page))
            self._note(page[: len(rounds)])
            yield [message for message in rounds if self._differs(message)]
            page = page[len(rounds) :] or self._store.rounds(
                self._run, after=max(mark, page[-1].round), limit=self.PAGE
            )

    def _look_first(self) -> None:
        """Where the rounds end, and which of the older ones are open."""
        newest = self._store.rounds(self._run, limit=1, newest=True)
        self._newest = newest[0].round if newest else 0
        if self._newest > self.WINDOW:
            self._note(self._store.rounds(self._run, states=("collecting", "aggregating")))

    def _note(self, records: list[RoundRecord]) -> None:
        for record in records:
            self._newest = max(self._newest, record.round)
            if _settled(record):
                self._unsettled.discard(record.round)
            else:
                self._unsettled.add(record.round)

    def _differs(self, message: pb.Round) -> bool:
        told = hash(message.SerializeToString(deterministic=True))
        if self._told.get(message.round) == told:
            return False
        self._told[message.round] = told
        while len(self._told) > 2 * self.WINDOW:
            del self._told[next(iter(self._told))]
        return True


def _settled(record: RoundRecord) -> bool:
    """Whether a round has ended, and what came of its updates is known; a held update is judged later."""
    if record.state == "decided":
        return record.accepted + record.rejected > 0
    return record.state in ("committed", "failed")
