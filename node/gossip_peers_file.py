"""The peers file of a node without a coordinator: who moved is called where the file says by now, with no restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from covey.errors import CoveyError
from covey.node.peers.roster import Member, Roster

log = structlog.get_logger(room="gossip")
LOOK_S = 5.0


class PeersFile:
    """A peers file, looked at again and again.

    Only addresses change while a node runs. Whom a run has was settled when it began, and another key is another
    identity: what else differs is said, and counts from the next start.

    Args:
        path: The file.
        roster: What it said when the node began; gets the new addresses.
        meet: Told of each node that moved, once the roster has its address.
    """

    def __init__(self, path: Path, roster: Roster, meet: Callable[[Member], object]) -> None:
        self._path, self._roster, self._meet = path, roster, meet
        self._reason = ""
        self._seen: dict[str, Member] | None = dict(roster.members)

    def look(self) -> list[Member]:
        """The nodes that have another address by now. Blocking.

        Half a file may be a valid one: what this look finds counts if the one before found the same.
        """
        known, moved, reason = self._roster.members, [], ""
        before, self._seen = self._seen, None
        try:
            newest = Roster.load(self._path).members
        except CoveyError as error:  # it is being written, or was written badly
            reason = str(error)
        else:
            self._seen = newest
            if newest != before:
                return []
            moved = [replace(known[name], address=newest[name].address) for name in known.keys() & newest.keys()]
            moved = [member for member in moved if member != known[member.name]]
            addresses = {name: member.address for name, member in newest.items()}
            if {name: replace(member, address=addresses.get(name, "")) for name, member in known.items()} != newest:
                reason = f"{self._path} names other nodes, keys or sites than when this node was started"
        if reason not in ("", self._reason):
            log.warning("of the peers file only addresses count before the next start", reason=reason)
        self._reason = reason
        return sorted(moved, key=lambda member: member.name)

    async def keep(self, look_s: float = LOOK_S) -> None:
        """Look every few seconds until cancelled."""
        while True:
            await asyncio.sleep(look_s)
            try:
                moved = await asyncio.to_thread(self.look)
            except Exception as error:
                log.exception("the peers file cannot be looked at; it is tried again", error=repr(error))
                continue
            self._roster.add(moved)
            for member in moved:
                log.info("a peer has another address", peer=member.name, address=member.address)
                self._meet(member)
