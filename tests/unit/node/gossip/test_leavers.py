"""Farewells on disk: the first of an incarnation counts, also after a restart; what does not count is passed over."""

from pathlib import Path
from typing import Any

import pytest

from covey.errors import IdentityError
from covey.gossip.ledger import Incarnation, InEdge, Ledger
from covey.node.gossip.record.leavers import Leavers
from covey.wire.mass_receipts import Notary

ADA, BOB = Incarnation("ada"), Incarnation("bob")


@pytest.fixture
def notary(identity: Any) -> Notary:
    return Notary(identity("ada"), "digits")


def leavers(folder: Path, notary: Notary) -> Leavers:
    known = Leavers(folder / "leavers", notary.open_left, {ADA, BOB}.__contains__)
    known.load()
    return known


def test_the_first_farewell_counts_and_is_known_after_a_restart(tmp_path: Path, notary: Notary) -> None:
    known, signed = leavers(tmp_path, notary), notary.sign_left(ADA, Ledger(into={BOB: InEdge(4, 5)}))
    statement = known.take(signed)
    assert statement is not None
    assert statement.with_peer(BOB) == (0, 5)
    other = notary.sign_left(ADA, Ledger(into={BOB: InEdge(4, 4)}))
    (tmp_path / "leavers" / "broken.json").write_text("{")
    for again in (known, leavers(tmp_path, notary)):
        assert again.take(signed) is None
        with pytest.raises(IdentityError, match="signed two farewells that differ"):
            again.take(other)
        assert again.signed() == [signed]
        assert [each.who for each in again] == [ADA]


def test_of_another_life_or_a_stranger_nothing_is_kept(tmp_path: Path, notary: Notary, identity: Any) -> None:
    known = leavers(tmp_path, notary)
    eve = Notary(identity("eve"), "digits").sign_left(Incarnation("eve"), Ledger())
    for signed in (eve, notary.sign_left(Incarnation("ada", 2), Ledger())):
        with pytest.raises(IdentityError, match="takes no part in this run, or not any more"):
            known.take(signed)
    assert not (tmp_path / "leavers").exists()
