import pytest

from covey.errors import Conflict, IdentityError, NotReady, SpecError, VersionMismatch
from covey.gossip.ledger import Incarnation
from covey.gossip.mass import ONE
from covey.node.peers.lives import Lives, Part
from covey.node.peers.translation import WIRE, Hello

ADA = Part(Incarnation("ada"), "digits", "5" * 64)


def hello(**changes):
    return Hello(**{**vars(ADA.hello()), **changes})


class Out(set):
    def refuse(self, who):
        if who in self:
            raise IdentityError("evicted")


def test_a_hello_that_fits_is_taken():
    ADA.refuse("bob", hello())
    assert Lives([], Out()).admit("bob", hello()) == (Incarnation("bob"), False)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"wire": WIRE + 1}, VersionMismatch),
        ({"wire": 0}, VersionMismatch),
        ({"run": "letters"}, Conflict),
        ({"specification": "6" * 64}, SpecError),
    ],
)
def test_a_hello_that_does_not_fit_is_refused(changes, error):
    with pytest.raises(error):
        ADA.refuse("bob", hello(**changes))


@pytest.mark.parametrize(("wire", "older"), [(WIRE + 1, "ada"), (WIRE - 1, "bob")])
def test_it_is_said_whom_to_upgrade(wire, older):
    with pytest.raises(VersionMismatch, match=f"upgrade {older}$"):
        ADA.refuse("bob", hello(wire=wire))


@pytest.mark.parametrize("changes", [{"incarnation": 0}, {"minted": ONE + 1}])
def test_what_no_incarnation_can_be_is_refused(changes):
    with pytest.raises(IdentityError):
        Lives([], Out()).admit("bob", hello(**changes))


def test_a_new_life_begins_when_the_one_before_is_out_for_good():
    out = Out()
    lives = Lives([Incarnation("bob", 2)], out)
    with pytest.raises(IdentityError, match="is over"):
        lives.admit("bob", hello(incarnation=1))
    with pytest.raises(NotReady, match=r"before bob \(incarnation 2\) is evicted"):
        lives.admit("bob", hello(incarnation=3))
    out.add(Incarnation("bob", 2))
    with pytest.raises(IdentityError, match="evicted"):
        lives.admit("bob", hello(incarnation=2))
    assert lives.admit("bob", hello(incarnation=3)) == (Incarnation("bob", 3), True)
    assert lives.admit("bob", hello(incarnation=3)) == (Incarnation("bob", 3), False)
    assert lives.of("bob") == Incarnation("bob", 3)


def test_no_life_is_left_out():
    out = Out([Incarnation("bob")])
    lives = Lives([], out)
    for number in (3, 4_000_000_000):
        with pytest.raises(NotReady, match=rf"before bob \(incarnation {number - 1}\) is evicted"):
            lives.admit("bob", hello(incarnation=number))
    assert lives.of("bob") == Incarnation("bob")
    out.add(Incarnation("bob", 2))
    assert lives.admit("bob", hello(incarnation=3)) == (Incarnation("bob", 3), True)
