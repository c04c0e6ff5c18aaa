"""The machine of a gossip run at its coordinator: pure. It begins the run, counts what becomes of parts, and ends it.

The nodes need it for nothing in between: whatever it does not hear, they go on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from covey.coordinator.modes.gossip import events as ev
from covey.machines import protocol as pr
from covey.machines.membership import Membership
from covey.machines.shortage import listed

Action = (
    ev.OpenGossip | ev.Admit | ev.TurnAway | ev.SendOrder | ev.TellOthers | ev.NoteMember | ev.Evict | pr.SharedAction
)
PART = 1
"""The number under which a part in the run is answered: there is one a node."""
LATE = 2
"""The incarnation with which a node begins that came after the run began."""
NEVER_THERE = "it took no part from the beginning"
NO_PART = "it came after the run began, and all parts of the data are with other nodes: [data] parts leaves some over"


@dataclass
class Member:
    """A node's part: which incarnation, what it is, and since when it is awaited (asked, or without a connection).

    One that came after the run began takes part from its second incarnation on; `part` is then its part of the data.
    `is_out_for_good`: every incarnation is evicted, those to come too.
    """

    state: ev.MemberState = "invited"
    reason: str = ""
    incarnation: int = 1
    since: float = 0.0
    part: int | None = None
    is_out_for_good: bool = False


class GossipMachine:
    """One run.

    Args:
        policy: Its numbers.
        roster: Who takes part, where that is decided.
        expected: Nodes that are here or may come back, with the time each was last seen.
        known: What is on record of each part.
    """

    has_place = True
    """Of the class, as event logs of older versions open with machines that do not have it."""

    def __init__(
        self,
        policy: ev.GossipRunPolicy,
        roster: Iterable[str] = (),
        expected: Mapping[str, float] | None = None,
        known: Mapping[str, Member] | None = None,
    ) -> None:
        self.policy = policy
        self.members = Membership(roster, expected)
        self.parts: dict[str, Member] = dict(known or {})
        self.is_open, self.done = bool(self.parts), False
        """Whether who takes part is decided; whether the run is in a terminal state."""
        self.committed = 0
        self.paused = False
        self._is_started = False
        self._began = self._now = 0.0
        self._said = ""
        self._turned_away: set[str] = set()
        self._told_at: dict[str, float] = {}
        """When everybody was told of a node's new address."""
        self._untold: dict[str, float] = {}
        """Nodes with a newer one, and when everybody will be told."""

    # -- what a run asks ------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """`idle` until it is over: a coordinator that stops meanwhile interrupts nobody."""
        return "done" if self.done else "idle"

    @property
    def wake_at(self) -> float | None:
        """When the machine wants a `Tick` at the latest."""
        if self.done:
            return None
        times = [part.since + self._patience_s(node, part) for node, part in self._open()]
        if not self.is_open:
            times = [self._began + self.policy.gather_s]
        times += self._untold.values()
        return min((at for at in times if at > self._now), default=None)

    def collects(self, node: str, number: int) -> bool:
        """Whether this node has a part in the run."""
        return number == PART and node in self.parts and not self.done

    def expects(self, node: str, number: int) -> bool:
        """Whether this node's part goes on."""
        return self.collects(node, number) and self.parts[node].state not in ev.FOR_GOOD

    # -- events ---------------------------------------------------------------------------------------------------

    def handle(self, event: Any) -> Sequence[Action]:
        """Take one event; what is to be done, in order."""
        if self.done:
            return []
        self._now = getattr(event, "now", self._now)
        if isinstance(event, pr.StopRequested):
            return self._finish("stopped", event.reason)
        return [*self._take(event), *self._advance()]

    def _take(self, event: Any) -> list[Action]:
        match event:
            case pr.Started(now=now):
                self._is_started, self._began = True, now
                for part in self.parts.values():
                    part.since = now
            case pr.NodeJoined(node=node, now=now):
                self.members.join(node)
                return self._invited(node, now)
            case pr.NodeLost(node=node, now=now):
                self.members.leave(node, now)
                if node in self.parts:
                    self.parts[node].since = now
            case pr.NodeRemoved(node=node):
                self.members.remove(node)
                return [*self._out(node, "evicted", "an admin evicted it"), *self._out_for_good(node)]
            case pr.NodeAnswered(node=node, reason=reason, verdict="declined"):
                return self._out(node, "declined", reason)
            case pr.PauseChanged(paused=paused):
                self.paused = paused
            case pr.PlaceChanged(has_place=has_place):
                self.has_place = has_place
            case ev.Stated():
                return self._stated(event)
            case ev.Moved(node=node, now=now):
                self._untold.setdefault(node, max(now, self._told_at.get(node, -math.inf) + self.policy.tell_s))
        return []

    def _invited(self, node: str, now: float) -> list[Action]:
        part = self.parts.get(node)
        if part is None:
            return self._came_late(node, now) if self.is_open else []
        if part.state in ("declined", "evicted", "late"):
            return []
        part.since = now
        return [ev.SendOrder(node)]

    def _came_late(self, node: str, now: float) -> list[Action]:
        """A node joins a run that has begun, as long as there is somebody to join, and data for it.

        One that is turned away joins when a part of the data is free.
        """
        if not any(part.state in ("invited", "working") for part in self.parts.values()):
            return []
        free = self._free_part()
        if self.policy.closed or free is None:
            is_new = node not in self._turned_away
            self._turned_away.add(node)
            return [ev.TurnAway(node, self.policy.closed or NO_PART)] if is_new else []
        self._turned_away.discard(node)
        self.parts[node] = Member(incarnation=LATE, since=now, part=free)
        self.members.roster.append(node)
        return [ev.Admit(node, free), ev.Evict(node, 1, NEVER_THERE)]

    def _free_part(self) -> int | None:
        """The first part of the data whose owner is gone, or that has none; None: there is no such part."""
        founders = [part for part in self.parts.values() if part.part is None]
        if self.policy.parts is None:
            return len(self.parts)
        owners = [(place, part) for place, part in enumerate(founders)]
        owners += [(part.part, part) for part in self.parts.values() if part.part is not None]
        taken = {place for place, part in owners if part.state not in ev.GONE}
        return next((place for place in range(self.policy.parts or len(founders)) if place not in taken), None)

    def _out(self, node: str, state: ev.MemberState, reason: str) -> list[Action]:
        """A part is over, and the peers are not to wait for it, whichever incarnation of it they know."""
        part = self.parts.get(node)
        if part is None or part.state in ("declined", "evicted"):
            return []
        lives, text = range(1, part.incarnation + 1), f"{state}: {reason}"[:200]
        return [self._note(node, state, reason), *(ev.Evict(node, number, text) for number in lives)]

    def _out_for_good(self, node: str) -> list[Action]:
        """No incarnation of a node that the federation has no more may come back to its peers.

        It knows its own run and peers, and its certificate goes on: peers look at nothing but notices.
        """
        part = self.parts.get(node)
        if part is None or part.is_out_for_good:
            return []
        part.is_out_for_good = True
        return [ev.Evict(node, part.incarnation, "evicted: an admin evicted it", for_good=True)]

    def _stated(self, event: ev.Stated) -> list[Action]:
        part = self.parts.get(event.node)
        if part is None or part.state in ("declined", "evicted"):
            return []
        part.incarnation = max(part.incarnation, event.incarnation)
        if event.incarnation < part.incarnation or (event.state, event.reason) == (part.state, part.reason):
            return []
        part.since = event.now
        noted: list[Action] = [self._note(event.node, event.state, event.reason)]
        if event.state == "retired":  # its node says itself that it cannot go on as it is: it may come anew
            noted.append(ev.Evict(event.node, event.incarnation, "its record is older than what its peers had of it"))
            part.incarnation = event.incarnation + 1  # peers take that one now, whether it states anything here or not
        return noted

    def _note(self, node: str, state: ev.MemberState, reason: str) -> ev.NoteMember:
        part = self.parts[node]
        part.state, part.reason = state, reason
        return ev.NoteMember(node, state, reason)

    # -- what follows ---------------------------------------------------------------------------------------------

    def _advance(self) -> list[Action]:
        if not self._is_started:
            return []
        if not self.is_open:
            return self._begin()
        waiting = sorted(self._turned_away & self.members.present)
        late = [action for node in waiting for action in self._came_late(node, self._now)]
        return [*late, *self._moved(), *self._end()]

    def _moved(self) -> list[Action]:
        """Of each node's addresses everybody is told at most one in a while: it may have a new one every second."""
        due = sorted(node for node, at in self._untold.items() if at <= self._now)
        for node in due:
            del self._untold[node]
            self._told_at[node] = self._now
        return [ev.TellOthers(node) for node in due]

    def _begin(self) -> list[Action]:
        present, policy = sorted(self.members.present), self.policy
        if self.paused:
            return self._report("paused")
        if len(present) < policy.min_nodes:
            return self._report(f"waiting for nodes: {len(present)} of {policy.min_nodes} are connected")
        if self._now < self._began + policy.gather_s and set(self.members.eligible()) - set(present):
            return self._report("waiting a moment for nodes that may come back")
        if not self.has_place:
            return self._report(pr.NO_PLACE)
        self.is_open = True
        self.parts = {node: Member(since=self._now) for node in present}
        self.members.roster = present
        return [*self._report(""), ev.OpenGossip(tuple(present)), *map(ev.SendOrder, present)]

    def _open(self) -> list[tuple[str, Member]]:
        return [(node, part) for node, part in self.parts.items() if part.state not in ev.FOR_GOOD]

    def _patience_s(self, node: str, part: Member) -> float:
        if node in self.members.present and part.state == "invited":
            return self.policy.answer_s
        return self.policy.away_s

    def _end(self) -> list[Action]:
        actions: list[Action] = []
        for node, part in self._open():
            is_due = self._now >= part.since + self._patience_s(node, part)
            if is_due and node in self.members.present and part.state == "invited":
                actions += self._out(node, "late", "it has not answered; does it run an older version of Covey?")
        if all(self._is_given_up(node, part) for node, part in self._open()):
            for node, part in self._open():
                if part.state not in ("failed", "retired"):
                    actions.append(self._note(node, "lost", "it has no connection, and all others are through"))
            return [*actions, *self._conclude()]
        return actions

    def _is_given_up(self, node: str, part: Member) -> bool:
        """Whether an open part will not be waited for once no other one goes on."""
        if part.state in ("failed", "retired"):
            return self._now >= part.since + self.policy.away_s
        return node not in self.members.present and self._now >= part.since + self.policy.away_s

    def _conclude(self) -> list[Action]:
        through = self._with("completed", "left")
        if len(through) == len(self.parts):
            return self._finish("completed", "")
        reason = "; ".join(self._counted())
        return self._finish("completed" if through else "failed", reason)

    def _counted(self) -> Iterable[str]:
        counts = Counter(part.state for part in self.parts.values())
        for state in ("completed", "left", "declined", "failed", "retired", "lost", "late", "evicted"):
            if state in counts:
                nodes = self._with(state)
                reason = self.parts[nodes[-1]].reason
                names = f" ({listed(nodes)}{f': {reason}' if reason else ''})" if state != "completed" else ""
                yield f"{counts[state]} {state}{names}"

    def _with(self, *states: str) -> list[str]:
        return [node for node, part in self.parts.items() if part.state in states]

    def _report(self, reason: str) -> list[Action]:
        if reason == self._said:
            return []
        self._said = reason
        return [pr.Report(reason)]

    def _finish(self, state: pr.RunState, reason: str) -> list[Action]:
        self.done = True
        return [pr.FinishRun(state, reason)]
