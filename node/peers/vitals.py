"""Signs of life of all peers: who is suspected, who is trusted again, and how far away each is. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

from covey.node.peers.detector import PhiAccrual

BEAT_S = 1.0
GIVE_UP_BEATS = 15.0
"""After so long a silence a link is taken for broken, whatever the operating system says of it."""
MAX_UNANSWERED = 64
NEW_PART = 0.2
"""Of a measured round trip in the mean: it follows changes, and bears outliers."""
Change = Literal["suspected", "trusted"]


@dataclass(frozen=True)
class Beat:
    """A sign of life.

    Attributes:
        number: From 1, one more each time.
        echo: The newest number that was had from the other side; 0: none.
        echo_age_s: How long ago that came.
    """

    number: int
    echo: int = 0
    echo_age_s: float = 0.0


@dataclass
class _Pulse:
    detector: PhiAccrual
    is_trusted: bool = False
    sent: OrderedDict[int, float] = field(default_factory=OrderedDict)
    """Beats that were not answered, and when they were sent."""
    number: int = 0
    """Of the newest beat that was sent."""
    heard: int = 0
    heard_at: float = 0.0
    round_trip_s: float = 0.0
    """0: not measured."""


class Vitals:
    """What is known of peers by their beats.

    Args:
        beat_s: How often each side says something.
        pause_s: As `PhiAccrual`.
    """

    def __init__(self, beat_s: float = BEAT_S, pause_s: float | None = None) -> None:
        self.beat_s, self._pause_s = beat_s, pause_s
        self._pulses: dict[str, _Pulse] = {}

    def _of(self, peer: str) -> _Pulse:
        return self._pulses.setdefault(peer, _Pulse(PhiAccrual(self.beat_s, pause_s=self._pause_s)))

    def began(self, peer: str, now: float) -> None:
        """A link to a peer was made: its hello is its first sign of life, and its numbers begin anew."""
        pulse = self._of(peer)
        pulse.detector.heard(now)
        pulse.sent.clear()
        pulse.number = pulse.heard = 0

    def next_beat(self, peer: str, now: float) -> Beat:
        """The beat that is to be sent to a peer now."""
        pulse = self._of(peer)
        pulse.number += 1
        pulse.sent[pulse.number] = now
        if len(pulse.sent) > MAX_UNANSWERED:
            pulse.sent.popitem(last=False)
        return Beat(pulse.number, pulse.heard, max(0.0, now - pulse.heard_at) if pulse.heard else 0.0)

    def heard(self, peer: str, beat: Beat, now: float) -> None:
        """A peer's beat came."""
        pulse = self._of(peer)
        pulse.detector.heard(now)
        pulse.heard, pulse.heard_at = beat.number, now
        sent_at = pulse.sent.get(beat.echo)
        if sent_at is None:  # an echo of nothing, or of what was answered already
            return
        while pulse.sent and next(iter(pulse.sent)) <= beat.echo:
            pulse.sent.popitem(last=False)
        measured = min(max(0.0, now - sent_at - beat.echo_age_s), now - sent_at)
        before = pulse.round_trip_s
        pulse.round_trip_s = before + NEW_PART * (measured - before) if before else measured

    def spoke(self, peer: str, now: float) -> None:
        """A peer said something else. Of one that is suspected that is a sign of life: it may be suspected anew.

        Else who heard its last words while it was suspected would take it for one that is there, for good.
        """
        pulse = self._of(peer)
        if pulse.detector.is_suspicious(now):
            pulse.detector.heard(now)

    def changes(self, now: float) -> list[tuple[str, Change]]:
        """Who is suspected, or trusted, since the last time that this was asked."""
        changes: list[tuple[str, Change]] = []
        for peer, pulse in self._pulses.items():
            is_trusted = not pulse.detector.is_suspicious(now)
            if is_trusted != pulse.is_trusted:
                pulse.is_trusted = is_trusted
                changes.append((peer, "trusted" if is_trusted else "suspected"))
        return changes

    def is_silent(self, peer: str, now: float) -> bool:
        """Whether a peer's link is to be given up."""
        return self._of(peer).detector.silence_s(now) > GIVE_UP_BEATS * self.beat_s

    def round_trip_s(self, peer: str) -> float:
        """Of small messages to a peer and back, on average; 0: not measured."""
        pulse = self._pulses.get(peer)
        return pulse.round_trip_s if pulse is not None else 0.0

    def forget(self, peer: str) -> None:
        """A peer's incarnation is over."""
        self._pulses.pop(peer, None)
