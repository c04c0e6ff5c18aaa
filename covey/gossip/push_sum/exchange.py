"""What one node gave to whom and had from whom, and what it knows of its peers: what all phases of a machine share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from covey.errors import LedgerError
from covey.gossip.ledger import Batch, Incarnation, InEdge, Ledger, OutEdge
from covey.gossip.mass import ONE
from covey.gossip.push_sum.actions import Accept, AcknowledgeAgain, Action, Portion, Refuse, Retire, Send
from covey.gossip.push_sum.events import Arrived, Progressed, StatementsShown
from covey.gossip.push_sum.words import Peer

UNANSWERED_S = 120.0
"""After how long a batch that a peer does not acknowledge, though it shows signs of life, keeps no others back."""


class Exchange:
    """The account, the peers, and what waits to be mixed in.

    Args:
        me: Whose.
        peers: Who takes part besides.
        minted: The units that the node begins with.
        total: All units that were ever minted, this node's included.
        is_met: Whether the peers were heard already.
    """

    askers: frozenset[Incarnation] | set[Incarnation] = frozenset()
    """Who joined without mass and asked for half of this node's. Of the class where nobody did, as in older records."""

    asked: Incarnation | None = None
    """Whom this node asked for half of its mass, having joined without; None: nobody yet."""
    followers: frozenset[Incarnation] | set[Incarnation] = frozenset()
    """Who was given the newest batches, where bodies go on from those before."""
    given_at: Mapping[Incarnation, float] = {}
    """When the batches that are on their way were given, in the machine's seconds."""
    is_whole = False
    """The newest publication goes to a peer that was not given the one before: its body cannot go on from that."""

    def __init__(
        self, me: Incarnation, peers: Iterable[Incarnation], minted: int, total: int, *, is_met: bool = False
    ) -> None:
        self.me, self.total = me, total
        self.peers = {peer: Peer(is_met, is_met) for peer in peers if peer != me}
        self.ledger = Ledger()
        self.ledger.mint(minted)
        self.pending: list[Portion] = []
        self.published: dict[Incarnation, int] = {}
        """The step whose publication is the body of the batch on its way to a peer."""
        self.departed: set[Incarnation] = set()
        """Who left in order: a notice of its joining may come once more."""
        self.contradictions: dict[Incarnation, str] = {}
        """What peers claim of what was exchanged, and do not prove; and what they gave that cannot be."""
        self.uncertain = 0
        """Units that were taken back from evicted peers, or by the word of those that left: their fate is not known."""
        self.has_news = True
        """Something came since the last batch was given."""

    gone = 0
    """Units that the evicted are taken to have taken along: not in `total` any more."""

    @property
    def ever_minted(self) -> int:
        """All units that this node knows to have been minted: the bound of a batch that comes.

        Those who are gone count too. What they gave away goes on, and nobody can know how much died with them; a bound
        without that would refuse honest batches.
        """
        return self.total + self.gone

    @property
    def kept(self) -> int:
        """Units that are part of the model z."""
        return self.ledger.live - sum(portion.units for portion in self.pending)

    @property
    def mean(self) -> int:
        """The mass of a node on average."""
        return self.total // (1 + len(self.peers))

    @property
    def scale(self) -> float:
        """Mean mass by own mass, with which a step moves x by the same whatever w is; 0: there is no own one."""
        return self.mean / self.kept if self.kept > 0 else 0.0

    # -- giving -----------------------------------------------------------------------------------------------------

    def give(self, parts: Mapping[Incarnation, int], step: int, now: float = 0.0) -> tuple[Batch, ...]:
        """Commit mass to peers, with a step's publication as its body. Raises LedgerError as `Ledger.commit`.

        A node that was given a liar's mass may have more than there is: it gives nothing that others have to refuse.
        """
        batches = tuple(self.ledger.commit({peer: min(units, self.ever_minted) for peer, units in parts.items()}))
        given = [batch.peer for batch in batches]
        self.published |= dict.fromkeys(given, step)
        at = {**self.given_at, **dict.fromkeys(given, now)}
        self.given_at = {peer: at.get(peer, now) for peer in self.published}
        self.has_news = self.has_news and not batches
        return batches

    def tell(self, peers: Iterable[Incarnation]) -> None:
        """A publication goes to these, and its body goes on from the one before, if all of them were given that.

        Edges carry each batch in order and once, so who was given one has it before the next.
        """
        told = frozenset(peers)
        self.is_whole = not told <= self.followers
        self.followers = told or self.followers

    def asked_for_half(self, peer: Incarnation) -> None:
        """A peer asks for half of the mass. Only an incarnation that joined does, and it gets it only once."""
        if peer in self.peers and peer.number > 1 and peer not in self.ledger.out:
            self.askers = {*self.askers, peer}

    def asker(self) -> Incarnation | None:
        """Who is to get half of the mass with the next publication; None: nobody."""
        askers = [peer for peer in self.askers if peer not in self.ledger.out and self.is_usable(peer)]
        return min(askers, default=None)

    def send(self, peer: Incarnation) -> Send:
        """The batch on its way to a peer, to be sent (again)."""
        edge = self.ledger.out[peer]
        return Send(Batch(peer, edge.sequence, edge.waiting, edge.sent), self.published[peer])

    def delivered(self, peer: Incarnation, sequence: int) -> None:
        """A peer has a batch durably. Raises LedgerError as `Ledger.acknowledged`."""
        if self.ledger.acknowledged(peer, sequence):
            self.published.pop(peer, None)
            if peer in self.peers:
                self.peers[peer].refuses = False

    def refused(self, peer: Incarnation, sequence: int) -> None:
        """A peer says that a batch cannot be: what was given stays given, and is offered again now and then."""
        edge = self.ledger.out.get(peer, OutEdge())
        if peer in self.peers and edge.waiting and edge.sequence == sequence:
            self.peers[peer].refuses = True
            self._cut_off(peer)

    def take_back(self, peer: Incarnation) -> int:
        """A peer is gone: what is on its way to it comes back, with the model that it was sent with; how much it is."""
        units = self.ledger.evict(peer)
        step = self.published.pop(peer, 0)
        if units:
            self.pending.append(Portion(self.me, step, units, step))
            self.has_news = True
        return units

    def is_usable(self, name: Incarnation) -> bool:
        """Whether mass may be given to a peer now."""
        peer = self.peers.get(name)
        return peer is not None and peer.is_trusted and self.ledger.is_free(name)

    def is_busy(self, name: Incarnation) -> bool:
        """Whether a peer that is there has not acknowledged the batch before."""
        peer = self.peers.get(name)
        return peer is not None and peer.is_trusted and not self.ledger.is_free(name)

    def unanswered(self, now: float) -> list[Incarnation]:
        """Peers that are there and have not acknowledged a batch for long: a full disk, or bad will."""
        long_ago = [peer for peer in self.published if now - self.given_at.get(peer, now) >= UNANSWERED_S]
        return sorted(peer for peer in long_ago if self.peers[peer].is_trusted)

    def is_full(self, most: int, now: float) -> bool:
        """Whether `most` publications are on their way; those to who is away, or does not answer, do not count."""
        late = self.unanswered(now)
        counted = [peer for peer in self.published if self.peers[peer].is_trusted and peer not in late]
        return len({self.published[peer] for peer in counted}) >= most

    @property
    def is_sending(self) -> bool:
        """Whether something is on its way to a peer that does not refuse it."""
        return any(not self.peers[peer].is_at_odds for peer in self.published)

    # -- having -----------------------------------------------------------------------------------------------------

    def arrived(self, event: Arrived, steps: int, most: int = 0, *, waits: bool = True) -> Action:
        """A batch came: taken once, acknowledged as often as it comes, refused where it cannot be.

        Args:
            event: It.
            steps: So many does the run have: nothing is sent in a later one.
            most: The most units that it may have; 0: all that there are.
            waits: Whether nodes wait for each other; else whose batches belie its word about its pace is named.
        """
        try:
            if event.peer not in self.peers:
                raise LedgerError(f"{event.peer} takes no part in this run")
            if event.step > steps:
                raise LedgerError(f"batch {event.sequence} is of step {event.step}; the run has {steps}")
            most = most or self.ever_minted
            outcome = self.ledger.apply(event.peer, event.sequence, event.units, most, event.given)
        except LedgerError as error:
            if event.peer in self.peers:
                self.peers[event.peer].is_refused = True
                self._cut_off(event.peer, f"nobody waits for {event.peer} any more: {error}")
            return Refuse(event.peer, event.sequence, str(error))
        if outcome == "double":
            return AcknowledgeAgain(event.peer, event.sequence)
        self.pending.append(Portion(event.peer, event.sequence, event.units, event.step))
        peer = self.peers[event.peer]
        peer.newest_step = max(peer.newest_step, event.step)
        if peer.is_refused:  # as when this node learnt only now of mass that somebody else joined with
            peer.is_refused = False
            self.contradictions.pop(event.peer, None)
        if not waits and (claim := peer.belied(event)):
            self.contradictions[event.peer] = claim
        self.has_news = True
        return Accept(event.peer, event.sequence)

    def is_awaited(self, sender: Incarnation, step: int, *, also_silent: bool = False) -> bool:
        """Whether what a peer sends in a step is still to come; of one that is silent, nothing is unless so asked."""
        peer = self.peers.get(sender)
        if peer is None or peer.is_at_odds or not (peer.is_trusted or also_silent) or peer.newest_step >= step:
            return False
        had = self.ledger.into.get(sender, InEdge())
        return not (peer.step >= step and had.sequence >= peer.sequence)

    def only_mutual(self, due: Collection[Portion], step: int, partners: Collection[Incarnation]) -> list[Portion]:
        """Those that partners of a step sent in it; the mass of the others stays here, with no model.

        A node without mass of its own has just joined: it takes whatever comes.
        """
        if not self.kept:
            return list(due)
        others = {portion for portion in due if portion.step != step or portion.source not in partners}
        self.pending = [portion for portion in self.pending if portion not in others]
        return [portion for portion in due if portion not in others]

    def mixed(self, portions: Iterable[Portion]) -> None:
        """These are part of the model now. Another one may be just like one of them: taken back from a second peer."""
        left, waiting = Counter(portions), self.pending
        self.pending = []
        for portion in waiting:
            if left[portion]:
                left[portion] -= 1
            else:
                self.pending.append(portion)

    # -- peers ------------------------------------------------------------------------------------------------------

    def shown(self, event: StatementsShown) -> Retire | None:
        """A peer shows what this node signed: more than is on record here cannot be but of a record that was lost."""
        given, had = self._on_record(event.peer)
        if event.given <= given and event.had <= had:
            return None
        numbers = f"given {event.given} batches, on record {given}; had {event.had}, on record {had}"
        return Retire(
            f"{event.peer} shows this node's own signature under more than its record knows of: the record is an older "
            f"one, or a run of this name was made before ({numbers})"
        )

    def _on_record(self, peer: Incarnation) -> tuple[int, int]:
        """Numbers of the newest batches to and from a peer."""
        return self.ledger.out.get(peer, OutEdge()).sequence, self.ledger.into.get(peer, InEdge()).sequence

    def _is_contradicted(self, peer: Incarnation, applied: int, acknowledged: int = 0) -> bool:
        """Whether a peer claims more than is on record here. Only a signature of this node's own could prove that.

        With who does, nothing is exchanged any more; this node goes on.
        """
        given, had = self._on_record(peer)
        if applied <= given and acknowledged <= had:
            return False
        self._cut_off(
            peer,
            f"{peer} claims to have had batch {applied} of this node, and that it had batch {acknowledged}; on record "
            f"are {given} and {had}, and it shows no signature under more",
        )
        return True

    def _cut_off(self, peer: Incarnation, claim: str = "") -> None:
        self.peers[peer].is_trusted, self.peers[peer].is_known = False, True
        if claim:
            self.contradictions[peer] = claim

    def progressed(self, event: Progressed, steps: int) -> None:
        """A peer says where it is; with one that says more than the `steps` of the run nothing is exchanged."""
        if event.step > steps:
            self._cut_off(event.peer, f"{event.peer} claims to be at step {event.step}; the run has {steps}")
            return
        if self._is_contradicted(event.peer, event.applied, event.acknowledged):
            return
        peer, (given, had) = self.peers[event.peer], self._on_record(event.peer)
        peer.is_trusted, peer.is_known = not peer.is_at_odds, True
        peer.says(event, had)
        if event.applied == given:
            self.delivered(event.peer, event.applied)

    def left(self, peer: Incarnation, applied: int, signed: int = 0) -> None:
        """A peer left in order. What it says not to have had comes back, unless it signed to have had it.

        Args:
            peer: Who; it has not left where it cannot have had what it says.
            applied: The newest batch that it had, by its word.
            signed: The newest that it had by its signature; 0: none.
        """
        if self._is_contradicted(peer, applied):
            return
        given, _ = self._on_record(peer)
        if applied < signed:
            claim = f"{peer} left, and claims to have had this node's batches up to {applied}"
            self.contradictions[peer] = f"{claim}; it signed to have had batch {signed}"
        if max(applied, signed) >= given:
            self.delivered(peer, given)
        self.uncertain += self.take_back(peer)
        self.departed.add(peer)
        del self.peers[peer]

    def evicted(self, peer: Incarnation) -> None:
        """A peer is out for good."""
        if peer in self.peers:
            self.uncertain += self.take_back(peer)
            self.gone += self.mean
            self.total -= self.mean
            del self.peers[peer]
        elif peer not in self.ledger.evicted:  # it joined, and nobody said so here: it began with as much at most
            self.gone += ONE
        self.ledger.evicted.add(peer)

    def joined(self, peer: Incarnation, minted: int) -> None:
        """A peer takes part from now on."""
        if peer not in {self.me, *self.peers, *self.departed, *self.ledger.evicted}:
            self.peers[peer] = Peer()
            self.total += minted

    @property
    def heard(self) -> int:
        """How many nodes show signs of life, this one and those that are through included."""
        return 1 + sum(peer.is_trusted for peer in self.peers.values())

    def step_counts(self, own: int) -> list[int]:
        """How many steps this node made, then those of the peers that are there and whose words are not belied."""
        return [own, *self._counts(self.contradictions)]

    def believed(self, own: int | None = None) -> int:
        """The same, as far as one peer's word is believed: at most one step beyond the next of all, this node included.

        A peer that is alone with this node is believed, and so is the only one that a joiner hears.

        Args:
            own: How many this node made; None: it joins, and goes by peers that made any.
        """
        counts = self._counts()
        if own is None:
            counts = [steps for steps in counts if steps]
        elif len(self.peers) > 1:
            counts.append(own)
        counts.sort()
        return min(counts[-1], counts[-2] + 1) if len(counts) > 1 else sum(counts)

    def _counts(self, without: Collection[Incarnation] = ()) -> list[int]:
        counted = [peer for name, peer in self.peers.items() if peer.is_trusted and name not in without]
        return [max(peer.step, peer.newest_step) + 1 for peer in counted]

    def unheard(self) -> list[Incarnation]:
        """Peers that were there, or that something was exchanged with, of whom nothing is known since the restart.

        Who was there is waited for too: else a step in lock step would be planned without it.
        """
        met = self.ledger.out.keys() | self.ledger.into.keys()
        peers = self.peers.items()
        return sorted(name for name, peer in peers if not peer.is_known and (peer.was_there or name in met))

    def resumed(self, now: float) -> None:
        """This node goes on from its record: nothing is known of its peers until they are heard."""
        self.given_at = dict.fromkeys(self.published, now)
        for peer in self.peers.values():
            peer.was_there, peer.is_trusted, peer.is_known = peer.is_trusted, False, False
