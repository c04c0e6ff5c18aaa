"""Which run has a place on which node: pure, without a clock.

A node says how many runs it takes at once, and how much memory it has. A run is begun when every connected node that
it may use has a place for it; so its result does not depend on which other runs there are. Nodes that come later give
a place to those runs that are first in order, and the next ones get it when one of these ends.

A run that does nothing (`Places.idle`) lends its places. While others have them it stands aside: it goes on with what
it has open, and opens nothing new until there is a place for it again. So of the runs that open rounds there are never
more than places, neither on a node, nor on the coordinator, nor in a study.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from covey.machines.shortage import listed

COPIES = 6
"""Of the model, that a run takes of a node's memory: base, model, gradients, two of an optimizer, the update. A rule of
thumb, and so it only keeps runs from sharing a node: none waits for memory of a node that works for no other."""
MOST_IDLE = 4
"""While so many runs of a study are idle no other one of it begins: there is room for the runs of others."""
NO_NODE = "waits for a node: none that it may use is connected"
LENT = "its places are lent to other runs until it can go on"


@dataclass(frozen=True)
class Room:
    """What a node says of itself; 0: it does not say, and there is no limit.

    Attributes:
        max_runs: How many runs it takes at once.
        memory_bytes: How much memory it had for them when it connected.
        gpu_bytes: How much its GPU had; None: it will say so in a moment.
    """

    max_runs: int = 0
    memory_bytes: int = 0
    gpu_bytes: int | None = 0


@dataclass(frozen=True)
class Want:
    """A run that has, or wants, places.

    Attributes:
        run: Its id.
        priority: The higher one is first.
        submitted_at: Of the same priority, the older one is (Unix seconds).
        started: It has begun, and is before all that have not.
        model_bytes: Size of its model; 0: unknown.
        gpu_bytes: What it takes of a node's GPU; 0: it does not say.
        scope: The only nodes that it may use; None: all.
        without: Of these, none.
        study: The study that it belongs to; empty: none.
    """

    run: str
    priority: int = 0
    submitted_at: float = 0.0
    started: bool = False
    model_bytes: int = 0
    gpu_bytes: int = 0
    scope: frozenset[str] | None = None
    without: frozenset[str] = frozenset()
    study: str = ""

    @property
    def order(self) -> tuple[bool, int, float, str]:
        """Runs are served in this order."""
        return not self.started, -self.priority, self.submitted_at, self.run

    def uses(self, node: str) -> bool:
        """Whether the run may use a node at all."""
        return (self.scope is None or node in self.scope) and node not in self.without


class Places:
    """Of all nodes."""

    def __init__(self) -> None:
        self._rooms: dict[str, Room] = {}
        """Of the connected nodes."""
        self._unsaid: set[str] = set()
        """Those that have not said yet what memory their GPU has. Until then, what they had before counts."""
        self._away: dict[str, Room] = {}
        """Of those that left, and on which a run has a place: what is free there does not change by that."""
        self._wants: dict[str, Want] = {}
        """Of the runs that were begun."""
        self._holds: dict[str, set[str]] = {}
        """Run to the nodes on which it has a place, those that are away included."""
        self.max_runs = 0
        """How many runs have a place on the coordinator; 0: there is no limit."""
        self.study_runs: Mapping[str, int] = {}
        """Study to how many of its runs have one; of a study that is not named there is no limit."""
        self.idle: frozenset[str] = frozenset()
        """Runs that do not work now, and keep no place from others."""
        self.waiting: frozenset[str] = frozenset()
        """Of these, those that wait for nodes."""
        self.aside: set[str] = set()
        """Runs whose places others have now. They are to open nothing new."""
        self._reserved: set[str] = set()
        """Nodes that one of these is to have before runs that have not begun."""

    # -- nodes

    def joined(self, node: str, room: Room) -> frozenset[str]:
        """A node is connected: the first in order get its places, but for those of runs that work.

        Runs that wait for nodes are served like the others, as this may be the node that they wait for, and give their
        places back if they are not among the first; so do those that work, if it takes fewer runs than before. Returns
        those that did.
        """
        waiting = self.waiting & self._wants.keys()
        has_work = self.aside - waiting  # and goes on with that, whoever has its place
        held = [w for w in self._in_order(self._wants.values()) if node in self._holds[w.run] and w.run not in has_work]
        for want in held:
            self._holds[want.run].discard(node)
        self.aside |= waiting
        before = self._away.pop(node, None) or self._rooms.get(node)
        self._unsaid.discard(node)
        if room.gpu_bytes is None:
            self._unsaid.add(node)
            room = replace(room, gpu_bytes=before.gpu_bytes) if before is not None else room
        self._rooms[node] = room
        self._give([want for want in held if want.run not in self.aside], [node], idle=frozenset())
        for want in self._in_order(self._wants.values()):
            self._give([want], [node], idle=frozenset())
            if want.run in waiting and not self._why_aside(want, frozenset()):
                self.aside.discard(want.run)
        return frozenset(want.run for want in held if node not in self._holds[want.run])

    def learned(self, node: str, room: Room) -> None:
        """A connected node says what memory its GPU has, once; of the rest, what it said as it came holds.

        Who has a place keeps it, also if that is less than before.
        """
        if node in self._unsaid and room.gpu_bytes is not None:
            self._unsaid.discard(node)
            self._rooms[node] = replace(self._rooms[node], gpu_bytes=room.gpu_bytes)

    def room(self, node: str) -> Room:
        """What a connected node says of itself; of another one, nothing."""
        return self._rooms.get(node, Room())

    def left(self, node: str) -> None:
        """A node has no connection; who has a place on it keeps it."""
        self._unsaid.discard(node)
        if (room := self._rooms.pop(node, None)) is not None:
            self._away[node] = room
            self._forget()

    def gone(self, node: str) -> None:
        """A node is shut out for good, and works for none."""
        for run in self._wants:
            self.exclude(run, node)

    def _forget(self) -> None:
        held = frozenset[str]().union(*self._holds.values())
        self._away = {node: room for node, room in self._away.items() if node in held}

    # -- runs

    def enter(self, want: Want) -> None:
        """A run is begun: it has a place on every node that has one, also if it is away for a moment."""
        self._wants[want.run], self._holds[want.run] = want, set()
        self._give([want], [*self._rooms, *self._away], idle=self.idle)
        self._make_way()

    def leave(self, run: str) -> None:
        """A run has ended."""
        self._wants.pop(run, None)
        self._holds.pop(run, None)
        self.aside.discard(run)
        self._forget()

    def exclude(self, run: str, node: str) -> None:
        """A node is to work for a run no more."""
        if (want := self._wants.get(run)) is not None:
            self._wants[run] = replace(want, without=want.without | {node})
            self._holds[run].discard(node)
            self._forget()

    def settle(self, *, left_over: bool = False) -> list[tuple[str, str]]:
        """Give places that came free to runs that have been begun, in their order.

        Those that stand aside have theirs back as soon as they could work, and there is room; those that could not
        only if no other run takes them.

        Args:
            left_over: Whether no other run can take what is free now.

        Returns:
            New places on nodes, as (run, node).
        """
        given = self._give(self._wants.values(), self._rooms, idle=self.idle)
        self._make_way()
        self._reserved = set()
        for want in self._in_order(self._wants[run] for run in self.aside - self.idle):
            if self._why_aside(want, self.idle) or self._holds[want.run] & self._reserved:
                self._reserved |= self._holds[want.run]
            else:
                self.aside.discard(want.run)
                self._make_way()
        for want in self._in_order(self._wants[run] for run in self.aside & self.idle if left_over):
            if not self._why_aside(want, frozenset()):
                self.aside.discard(want.run)
        return given

    def _give(self, wants: Iterable[Want], nodes: Collection[str], idle: Collection[str]) -> list[tuple[str, str]]:
        places = []
        for want in self._in_order(wants):
            for node in sorted(nodes):
                if node not in self._holds[want.run] and want.uses(node) and not self._full(node, want, (), idle):
                    self._holds[want.run].add(node)
                    places.append((want.run, node))
        return places

    def _make_way(self) -> None:
        """Idle runs whose places others have stand aside, the last in order first."""
        for want in reversed(self._in_order(self._with_places(()))):
            if want.run in self.idle and self._why_aside(want, frozenset()):
                self.aside.add(want.run)

    def _why_aside(self, want: Want, idle: Collection[str]) -> str:
        """For which of the places that a run was given there is no room beside those that have one, in words."""
        return self._no_seat(want, (), idle) or self._awaited(want, self._holds[want.run], (), idle)

    def admits(self, run: str, node: str) -> bool:
        """Whether a node works for a run; also if the run was begun without asking for places."""
        return run not in self._wants or node in self._holds[run]

    def uses(self, run: str, node: str) -> bool:
        """Whether a node may work for a run at all."""
        want = self._wants.get(run)
        return want is None or want.uses(node)

    def lacking(self, run: str) -> str:
        """Which places a run that was begun has not, in words; empty: it has all."""
        if (want := self._wants.get(run)) is None:
            return ""
        if run in self.aside:
            return self._why_aside(want, self.idle) or LENT
        return self._awaited(want, self._rooms.keys() - self._holds[run], (), self.idle)

    # -- who is next

    @property
    def working(self) -> int:
        """How many runs have a place on the coordinator, and do not lend it."""
        return len(self._with_places(self.idle))

    def choose(self, waiting: Iterable[Want], most: int, full: str) -> tuple[list[Want], dict[str, str]]:
        """Which runs are to begin now, and what each of the others waits for.

        Who waits for nodes has these before all that come after it: a large run is not passed by small ones for ever.
        From a run of which no node is connected those that are idle keep their places on the coordinator.

        Args:
            waiting: Runs that were not begun.
            most: How many may begin.
            full: What a run waits for that is one too many, in words.

        Returns:
            Those to begin, in order; run to reason of the others.
        """
        chosen: list[Want] = []
        reasons: dict[str, str] = {}
        awaited = set(self._reserved)
        at_work = Counter(want.study for want in self._with_places(self.idle))
        for want in _in_turn(waiting, at_work):
            if reason := self._why_not(want, chosen, awaited, most, full):
                reasons[want.run] = reason
            else:
                chosen.append(want)
                at_work[want.study] += 1
        return chosen, reasons

    def _why_not(self, want: Want, chosen: list[Want], awaited: set[str], most: int, full: str) -> str:
        """Why a run cannot begin beside those that were just chosen; nodes that it waits for are added to `awaited`."""
        if len(chosen) >= most:
            return full
        if want.study and not want.started and self._idle_of(want.study) >= MOST_IDLE:
            return f"waits until one of {MOST_IDLE} idle runs of the study {want.study!r} goes on or ends"
        if reason := self._no_seat(want, chosen, self.idle):
            return reason
        nodes = {node for node in self._rooms if want.uses(node)}
        if not nodes:
            return "" if len(chosen) + len(self.idle) < most else NO_NODE
        nodes |= {node for node in self._away if want.uses(node) and self._working(node, self.idle)}
        reason = "" if want.started else self._blocked(want, nodes, awaited, chosen)
        awaited |= nodes if reason else set()
        return reason

    def _idle_of(self, study: str) -> int:
        return sum(want.study == study for run, want in self._wants.items() if run in self.idle)

    def _no_seat(self, want: Want, chosen: Collection[Want], idle: Collection[str]) -> str:
        """Why there is no place on the coordinator, or in the run's study."""
        others = [each for each in (*self._with_places(idle), *chosen) if each.run != want.run]
        if self.max_runs and len(others) >= self.max_runs:
            return no_place(len(others), self.max_runs)
        most, same = self.study_runs.get(want.study, 0), sum(each.study == want.study for each in others)
        return f"waits for a place in the study {want.study!r}: {same} of {most} runs" if most and same >= most else ""

    def _blocked(self, want: Want, nodes: set[str], awaited: set[str], chosen: list[Want]) -> str:
        if reason := self._awaited(want, nodes, chosen, self.idle):
            return reason
        before = sorted(nodes & awaited)
        return f"waits for a place on {listed(before)}, which another run is to have first" if before else ""

    def _awaited(self, want: Want, nodes: Collection[str], chosen: Collection[Want], idle: Collection[str]) -> str:
        full = {node: self._full(node, want, chosen, idle) for node in sorted(nodes) if want.uses(node)}
        reasons = dict.fromkeys(reason for reason in full.values() if reason)
        parts = [f"{listed([n for n in full if full[n] == reason])}: {reason}" for reason in reasons]
        return f"waits for a place on {'; '.join(parts)}" if parts else ""

    def _with_places(self, idle: Collection[str]) -> list[Want]:
        """Those that may open rounds, but for idle ones."""
        return [want for run, want in self._wants.items() if run not in self.aside and run not in idle]

    def _working(self, node: str, idle: Collection[str]) -> list[Want]:
        """Those of them that have a place on a node."""
        return [want for want in self._with_places(idle) if node in self._holds[want.run]]

    def _full(self, node: str, want: Want, chosen: Collection[Want], idle: Collection[str]) -> str:
        """Why a node has no place for a run, beside those that it works for and those that were just chosen."""
        room = self._rooms.get(node) or self._away.get(node, Room())
        others = [w for w in (*self._working(node, idle), *(w for w in chosen if w.uses(node))) if w.run != want.run]
        if room.max_runs and len(others) >= room.max_runs:
            return f"{len(others)} of {room.max_runs} runs"
        need = COPIES * sum(each.model_bytes for each in (*others, want))
        of_gpu = sum(each.gpu_bytes for each in (*others, want))
        if room.gpu_bytes is None and of_gpu > want.gpu_bytes > 0:
            return "it has not said yet what memory its GPU has"
        for kind, asked, room_bytes in (("", need, room.memory_bytes), (" of GPU memory", of_gpu, room.gpu_bytes)):
            if room_bytes and others and asked > room_bytes:
                return f"{_gib(asked)} GiB{kind} for {len(others) + 1} runs are more than its {_gib(room_bytes)}"
        return ""

    @staticmethod
    def _in_order(wants: Iterable[Want]) -> list[Want]:
        return sorted(wants, key=lambda want: want.order)


def no_place(taken: int, most: int) -> str:
    """That the coordinator has no place for a run."""
    return f"waits for a place on the coordinator: {taken} of {most} runs"


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f}"


def _in_turn(waiting: Iterable[Want], at_work: Mapping[str, int]) -> Iterator[Want]:
    """In their order; of the same priority that study is next of which the fewest runs are at work then."""
    levels: dict[tuple[bool, int], dict[str, deque[Want]]] = {}
    for want in sorted(waiting, key=lambda want: want.order):
        levels.setdefault(want.order[:2], {}).setdefault(want.study, deque()).append(want)
    for studies in levels.values():
        while studies:
            study = min(studies, key=lambda name: (at_work.get(name, 0), studies[name][0].order))
            yield studies[study].popleft()
            if not studies[study]:
                del studies[study]
