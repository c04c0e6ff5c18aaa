"""What an adversary's post does with what an honest executor gives it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from typing_extensions import override

from covey.errors import SpecError
from covey.gossip.ledger import Batch, Incarnation
from covey.node.gossip.adversary import AdversaryPost, PeerAttack
from covey.node.gossip.ports import Post, Said

ADA, BOB, EVE = map(Incarnation, ("ada", "bob", "eve"))


class Sent(Post[str]):
    """Keeps what goes out."""

    def __init__(self) -> None:
        self.batches: list[tuple[Batch, int, str]] = []

    @override
    def tell(self, peer: Incarnation, event: Said) -> None:
        raise AssertionError("nothing is told here")

    @override
    def send(self, batch: Batch, step: int, body: str) -> None:
        self.batches.append((batch, step, body))

    @override
    def acknowledge(self, peer: Incarnation, sequence: int) -> None:
        raise AssertionError("nothing came")

    @override
    def refuse(self, peer: Incarnation, sequence: int, reason: str) -> None:
        raise AssertionError("nothing came")


class Words:
    """Makes bodies when it is told to, and counts who needs which."""

    def __init__(self) -> None:
        self.held: Counter[str] = Counter()
        self.asked: list[tuple[str, list[str], str | None]] = []
        self.waiting: list[Callable[[], None]] = []

    def hold(self, model: str) -> str:
        self.held[model] += 1
        return model

    def release(self, model: str) -> None:
        self.held[model] -= 1

    def forge(
        self,
        attack: PeerAttack,
        step: int,
        own: str,
        known: Sequence[str],
        receiver: str | None,
        then: Callable[[str], None],
    ) -> None:
        self.asked.append((own, list(known), receiver))
        self.waiting.append(lambda: then(self.hold(f"forged {own}")))


def test_each_batch_is_forged_once_and_sent_as_often_as_it_is_given() -> None:
    inner, words = Sent(), Words()
    post = AdversaryPost(inner, PeerAttack("alie"), words, ["eve"])
    for peer, body in ((BOB, "b1"), (EVE, "e1"), (BOB, "b2"), (ADA, "a1")):
        post.saw(peer, body)
    batch = Batch(BOB, 1, 5, 5)
    for _ in range(3):
        post.send(batch, 0, "own")
    assert (words.asked, inner.batches) == ([("own", ["a1", "b2"], "b2")], [])
    words.waiting.pop()()
    post.send(batch, 0, "own")
    assert inner.batches == [(batch, 0, "forged own")] * 2
    post.send(Batch(BOB, 2, 5, 10), 1, "next")
    words.waiting.pop()()
    assert +words.held == Counter({"b2": 1, "e1": 1, "a1": 1, "forged next": 1})  # nothing else is held on to


def test_a_lying_mass_is_consistent_along_the_edge_and_needs_no_forging() -> None:
    inner, words = Sent(), Words()
    post = AdversaryPost(inner, PeerAttack("lying-mass", {"factor": 3}), words)
    post.send(Batch(BOB, 2, 5, 12), 4, "own")
    assert inner.batches == [(Batch(BOB, 2, 15, 36), 4, "own")]
    assert not words.asked


@pytest.mark.parametrize(
    ("name", "options"), [("label-flip", {}), ("lying-mass", {"factor": 1}), ("lying-mass", {"factor": 2.5, "x": 1})]
)
def test_what_cannot_be_done_among_peers_is_refused(name: str, options: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="--attack"):
        PeerAttack(name, options)
