"""One node's part in push-sum learning: train at z, give shares of the mass away, mix in what comes.

The state is (z, w): the model, and its mass in whole units. A batch's body is the model z at the time of sending, and
with it travel the units that go; the receiver mixes both with its own by their units. That is push-sum with x = w z
(Assran et al. 2019, Algorithm 1; Kempe et al. 2003), written so that a mixture is always a weighted mean, that one body
serves every edge, and that what was published last is what a restart begins with.

A step: train, plan, publish (model, account and batches durable in one), send, wait for what the step needs, mix.
Steps that only average (`PushSumPolicy.averaging`) are the same without the training.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from covey.gossip.ledger import Incarnation
from covey.gossip.mass import ONE, TOKEN
from covey.gossip.push_sum.actions import Action, Announce, Finish, Plan, Portion, Publish, Refuse, Report, Send, Train
from covey.gossip.push_sum.events import (
    Acknowledged,
    Arrived,
    Begun,
    Event,
    HalfAsked,
    LeaveAsked,
    Mixed,
    PeerEvicted,
    PeerJoined,
    PeerLeft,
    PeerSuspected,
    Planned,
    Progressed,
    Published,
    Refused,
    Share,
    StatementsShown,
    Trained,
)
from covey.gossip.push_sum.exchange import Exchange
from covey.gossip.push_sum.joining import split
from covey.gossip.push_sum.leaving import is_to_pause
from covey.gossip.push_sum.pairs import pair_parts, without_requests
from covey.gossip.push_sum.policy import PushSumPolicy as PushSumPolicy
from covey.gossip.push_sum.rates import Rates
from covey.gossip.push_sum.reasons import reason_of
from covey.gossip.push_sum.weighing import mix_by_mass, mix_by_weights, tokens

Phase = Literal[
    "new", "settling", "training", "planning", "sharing", "publishing", "collecting", "mixing", "lingering", "over"
]
HALF = 2
"""A node with less than the mean by this factor pushes only after something came: else it would run dry."""


class PushSum:
    """The machine of one incarnation.

    Args:
        me: Which one.
        policy: The run's numbers.
        peers: Who takes part besides; nothing is exchanged with one before it was heard (`Progressed`).
        minted: The units that the node begins with.
        total: All units that were ever minted, this node's included; 0: every peer began with `ONE`.
        is_met: Whether the peers were heard already.
    """

    _answered, _handed_over, _handed_at = 0, 0, 0.0
    """How many portions had come when the step was published; how often a leaver gave all away, and when."""

    def __init__(
        self,
        me: Incarnation,
        policy: PushSumPolicy,
        peers: Iterable[Incarnation],
        minted: int = ONE,
        total: int = 0,
        *,
        is_met: bool = False,
    ) -> None:
        others = [peer for peer in peers if peer != me]
        self.me, self.policy = me, policy
        self.exchange = Exchange(me, others, minted, total or minted + ONE * len(others), is_met=is_met)
        self.step = 0
        self.phase: Phase = "new"
        self.mixing: tuple[Portion, ...] = ()
        self.is_leaving = False
        self.has_finished = False
        """All steps are done here and elsewhere; what still comes is taken all the same."""
        self.end = ""
        """Why its part is over for good: left, evicted; empty: it is not."""
        self.rates = Rates()
        self._now = 0.0
        self._shares: tuple[Share, ...] = ()
        self._weights: tuple[Share, ...] = ()
        self._senders: dict[int, tuple[Incarnation, ...]] = {}
        self._reason = ""

    @property
    def done(self) -> bool:
        """Whether nothing is to be done any more, but to answer peers."""
        return self.has_finished or self.phase == "over"

    def unacknowledged(self) -> list[Send]:
        """The batches that are to be sent again, to peers that are there."""
        # Who is evicted while it publishes has no body to send.
        published = self.exchange.published if self.phase != "over" else {}
        known = {name: self.exchange.peers[name] for name in published if not self._is_being_published(name)}
        return [self.exchange.send(name) for name, peer in known.items() if peer.is_trusted or peer.is_at_odds]

    # -- events -----------------------------------------------------------------------------------------------------

    def handle(self, event: Event) -> list[Action]:
        """Take one event; what is to be done, in order.

        Raises:
            LedgerError: A peer acknowledges what was never sent.
        """
        if self.phase == "over":
            return [Refuse(event.peer, event.sequence, "this node has left")] if isinstance(event, Arrived) else []
        self._now = getattr(event, "now", self._now)
        actions = self._take(event)
        while transition := self._advance():
            actions += transition
        return actions + self._report()

    def _take(self, event: Event) -> list[Action]:
        match event:
            case Begun():
                return self._begin()
            case Trained(step=step) if self.phase == "training" and step == self.step:
                return self._plan()
            case Planned(step=step) if self.phase == "planning" and step == self.step:
                self._shares, self._senders[step], self._weights = event.shares, event.senders, event.weights
                self.phase = "sharing"
            case Published(step=step) if self.phase == "publishing" and step == self.step:
                return self._sends()
            case Mixed(step=step) if (self.mixing or self.phase == "mixing") and step == self.step:
                return self._mixed()
            case Arrived():
                most, waits = 0 if self._has_mass else TOKEN, self.policy.overlap is not None
                return [self.exchange.arrived(event, self.policy.steps, most, waits=waits)]
            case Acknowledged(peer=peer, sequence=sequence):
                self.exchange.delivered(peer, sequence)
            case Refused(peer=peer, sequence=sequence):
                self.exchange.refused(peer, sequence)
            case Progressed():
                return self._progressed(event)
            case StatementsShown():
                return self._shown(event)
            case _:
                return self._membership(event)
        return []

    def _membership(self, event: Event) -> list[Action]:
        peers = self.exchange.peers
        match event:
            case PeerJoined(peer=peer, minted=minted):
                self.exchange.joined(peer, minted)
            case PeerSuspected(peer=peer) if peer in peers:
                peers[peer].is_trusted, peers[peer].is_known = False, True
            case PeerEvicted(peer=peer) if peer == self.me:
                self.exchange.ledger.lose()
                return self._end("evicted")
            case PeerEvicted(peer=peer):
                self.exchange.evicted(peer)
            case PeerLeft(peer=peer, applied=applied, signed=signed) if peer in peers:
                self.exchange.left(peer, applied, signed)
            case HalfAsked(peer=peer):
                self.exchange.asked_for_half(peer)
            case LeaveAsked():
                self.is_leaving = True
        return []

    def _progressed(self, event: Progressed) -> list[Action]:
        peer = self.exchange.peers.get(event.peer)
        if peer is None:
            return []
        was_trusted = peer.is_trusted
        self.exchange.progressed(event, self.policy.steps)
        if not peer.is_trusted:
            return []
        is_open = event.peer in self.exchange.published and not self._is_being_published(event.peer)
        return [self.exchange.send(event.peer)] if is_open and not was_trusted else []

    def _shown(self, event: StatementsShown) -> list[Action]:
        retire = self.exchange.shown(event)
        if retire is None:
            return []
        self.phase = "over"
        return [retire]

    def _is_being_published(self, peer: Incarnation) -> bool:
        return self.phase == "publishing" and self.exchange.published.get(peer) == self.step

    # -- the step ---------------------------------------------------------------------------------------------------

    def _begin(self) -> list[Action]:
        self.rates.resumed()
        if self.phase == "new":
            if self.me.number > 1 or not self.exchange.ledger.minted:  # late: else in lock step all would wait for it
                self.step = min(self.exchange.believed(), self.policy.steps - 1)
            return self._start()
        self.mixing = ()
        self.exchange.resumed(self._now)
        if self.phase == "lingering":
            self.has_finished = False
            return []
        self.phase = "settling"  # the newest publication is on record: what it sent, and to whom, is to be confirmed
        return []

    def _advance(self) -> list[Action]:
        """The next transition that needs no event; none: empty."""
        match self.phase:
            case "settling" if not self.exchange.unheard():
                self.phase = "collecting"
                return [Announce(self.step)]
            case "sharing" if self.is_leaving:
                return self._hand_over()
            case "sharing" if not self._waits_for_room():
                return self._publish(self._parts())
            case "collecting" if not self._missing():
                self.phase = "mixing"
                return self._mix() or self._next()
            case "lingering" if not self.mixing:
                return self._mix() or self._linger()
        return []

    def _start(self) -> list[Action]:
        return self._plan() if self.policy.averaging.is_round(self.step) else self._train()

    def _plan(self) -> list[Action]:
        self.phase = "planning"
        return [Plan(self.step, self.reachable)]

    def _train(self) -> list[Action]:
        self.phase = "training"
        scale, counts = self.exchange.scale if self._has_mass else 1.0, self.exchange.step_counts(self.step)
        factor = self.rates.factor(self.policy.correction, counts, self._now, scale, self.policy.largest)
        return [Train(self.step, factor)]

    @property
    def _has_mass(self) -> bool:
        return self.policy.weighs == "mass"

    @property
    def _is_through(self) -> bool:
        """Whether it has made all steps, or what counts for as many."""
        is_corrected = self.policy.correction != "none"
        return self.step >= self.policy.steps or (is_corrected and self.rates.counted >= self.policy.steps)

    def _waits_for_room(self) -> bool:
        """Whether a batch before is still on its way where the step sends to; who is away is not waited for.

        Where mass is split, and nobody is in lock step, what cannot be given now stays here.
        """
        if self.policy.overlap is None or (self.policy.overlap and self._has_mass):
            return False
        is_full = self.exchange.is_full(self.policy.max_in_flight, self._now)
        return is_full or any(self.exchange.is_busy(share.peer) for share in self._shares)

    def _parts(self) -> dict[Incarnation, int]:
        """The units for each peer that can have any now."""
        kept, exchange = self.exchange.kept, self.exchange
        if exchange.is_full(self.policy.max_in_flight, self._now):
            return {}
        if self.policy.pairs:
            parts = pair_parts(exchange, [share.peer for share in self._shares], self.step)
        elif self.policy.overlap is not None or exchange.has_news or kept * HALF >= exchange.mean:
            parts = split(exchange, self._shares) if self._has_mass else tokens(exchange, self._shares)
        else:
            return {}
        return parts if kept - sum(parts.values()) >= self.policy.least else {}

    def _publish(self, parts: dict[Incarnation, int]) -> list[Action]:
        self._answered = len(self.exchange.pending)
        batches = self.exchange.give(parts, self.step, self._now)
        if self.policy.differences:
            self.exchange.tell(parts)
        if self.policy.mutual:
            self._senders[self.step] = tuple(parts)
        self.phase = "publishing"
        return [Publish(self.step, batches, self.exchange.kept)]

    def _sends(self) -> list[Action]:
        self.phase = "collecting"
        new = [peer for peer, step in self.exchange.published.items() if step == self.step]
        without = tuple(share.peer for share in self._shares if share.peer not in new)
        news: list[Action] = [Announce(self.step, without)] if without else []
        return [*map(self.exchange.send, new), *news]

    def _missing(self) -> list[Incarnation]:
        """The peers whose batches the step waits for."""
        if self.policy.overlap is None or self.is_leaving:
            return []
        senders, needed, mutual = self._senders.get(self.needed, ()), self.needed, self.policy.mutual
        return [sender for sender in senders if self.exchange.is_awaited(sender, needed, also_silent=mutual)]

    @property
    def needed(self) -> int:
        """The step whose batches must have come before this one ends."""
        return self.step - (self.policy.overlap or 0)

    def _mix(self) -> list[Action]:
        """Mix in what has come; in lock step only what belongs to this step."""
        is_any = self.policy.overlap != 0 or self.phase == "lingering" or self.is_leaving
        due = [portion for portion in self.exchange.pending if is_any or portion.step <= self.step]
        if self.policy.mutual:
            due = self.exchange.only_mutual(due, self.step, self._senders.get(self.step, ()))
        if self.policy.pairs and self.phase != "lingering" and not self.is_leaving:
            due = without_requests(self.exchange, due, self._answered)
        mixes_alone = self.policy.mutual and self.phase == "mixing"
        if not due and not mixes_alone:
            return []
        mix = mix_by_mass(self.step, self.exchange.kept, due)
        self.mixing = mix.portions
        if not self._has_mass:
            takes_all = self.policy.differences or self.policy.takes_late
            heard = self.exchange.peers if takes_all and self.phase != "lingering" else ()
            self.mixing, mix = mix_by_weights(self.step, self._weights, due, heard)
            self.exchange.pending = [p for p in self.exchange.pending if p not in due or p in self.mixing]
        return [mix] if self.mixing or mixes_alone else []

    def _mixed(self) -> list[Action]:
        mixed, self.mixing = self.mixing, ()
        self.exchange.mixed(mixed)
        return self._next() if self.phase == "mixing" else []

    def _next(self) -> list[Action]:
        self._senders.pop(self.needed, None)
        if self.is_leaving:
            self.phase = "sharing"
            return []
        self.step += 1
        if not self._is_through:
            return self._start()
        self.phase = "lingering"
        return [Announce(self.step, is_finished=True)]

    @property
    def reachable(self) -> tuple[Incarnation, ...]:
        """This node, and the peers that something can be sent to, in order.

        Who has finished pushes nothing back, so where nodes do not wait for each other it gets nothing any more.
        """
        takes_late = self.policy.overlap is not None
        peers = self.exchange.peers.items()
        trusted = [name for name, peer in peers if peer.is_trusted and (takes_late or not peer.is_finished)]
        return tuple(sorted([self.me, *trusted], key=lambda peer: (peer.node, peer.number)))

    # -- the end ----------------------------------------------------------------------------------------------------

    def _linger(self) -> list[Action]:
        """All steps are done: stay until the others are, and until all that was sent has come."""
        others = all(peer.is_finished or not peer.is_trusted for peer in self.exchange.peers.values())
        if self.has_finished or not others or self.exchange.is_sending:
            return []
        self.has_finished = True
        return [Finish("completed")]

    def _hand_over(self) -> list[Action]:
        """Leave in order: all mass goes to one peer, and the node stays until it is there.

        What is on its way to a peer that is away may have come: that waits for this peer alone, and the rest goes.
        """
        exchange = self.exchange
        if any(exchange.is_busy(peer) for peer in exchange.published):
            return []
        if not self._has_mass:  # nothing to hand over
            exchange.pending = []
            exchange.ledger.lose()
            return self._end("left")
        if exchange.pending:
            self.phase = "mixing"
            return self._mix()
        if not exchange.ledger.live:
            return [] if exchange.ledger.in_flight else self._end("left")
        heirs = sorted(peer for peer in exchange.peers if exchange.is_usable(peer))
        is_under_way = self.step in exchange.published.values()  # its model goes on being sent, and not another one
        if not heirs or (is_under_way and self.step >= self.policy.steps):
            return []
        if is_to_pause(self.me, heirs[0], self._handed_over, len(exchange.peers), self._now - self._handed_at):
            return []
        self._handed_over, self._handed_at = self._handed_over + 1, self._now
        self.step += is_under_way
        return self._publish({heirs[0]: exchange.kept})

    def _end(self, reason: str) -> list[Action]:
        self.phase, self.end = "over", reason
        return [Finish(reason)]

    # -- what is waited for -----------------------------------------------------------------------------------------

    def _report(self) -> list[Action]:
        reason = reason_of(self.phase, self.exchange, self._missing(), self.needed, is_leaving=self.is_leaving)
        if reason == self._reason:
            return []
        self._reason = reason
        return [Report(reason)]
