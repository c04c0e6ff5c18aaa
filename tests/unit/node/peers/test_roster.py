import pytest

from covey.errors import IdentityError, SpecError
from covey.node.peers.roster import Member, Roster
from covey.wire.channels import Peer, key_sha256
from covey.wire.identities.identity import tls_key_in

PIN = "ab" * 32


@pytest.fixture
def read(tmp_path):
    def made(text):
        path = tmp_path / "peers.toml"
        path.write_text(text)
        return Roster.load(path)

    return made


def test_a_peers_file_is_read_in_the_order_of_names(read):
    roster = read(f"""
        [[peers]]
        name = "bob"
        address = "b.example.org:7410"
        fingerprint = "{PIN}"
        site = "north"

        [[peers]]
        name = "ada"
    """)
    assert list(roster.members.values()) == [Member("ada"), Member("bob", "b.example.org:7410", PIN, "north")]


def test_a_certificate_names_its_key(read, identity, tmp_path):
    identity("ada")
    folder = next(tmp_path.glob("node-ada-*"))
    roster = read(f'[[peers]]\nname = "ada"\ncertificate = "{folder.name}/tls.crt"')
    assert roster.members["ada"].fingerprint == key_sha256(tls_key_in(folder / "tls.key").public_key())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "peers: this key is required"),
        ("peers = []", "peers"),
        ('[[peers]]\nname = "ada"\nadress = "a:1"', "unknown key; known keys: address"),
        ('[[peers]]\nname = "Ada"', "'Ada' is not a valid name"),
        ('[[peers]]\nname = "ada"\n[[peers]]\nname = "ada"', "peers.1: this name stands there twice"),
        ('[[peers]]\nname = "ada"\naddress = "a.example.org"', "peers.0.address"),
        ('[[peers]]\nname = "ada"\nfingerprint = "xyz"', "peers.0.fingerprint"),
        ('[[peers]]\nname = "ada"\ncertificate = "none.crt"', "none.crt cannot be read"),
        ("[[peers", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(read, text, said):
    with pytest.raises(SpecError) as caught:
        read(text)
    assert said in str(caught.value)


def test_who_is_named_is_admitted_with_the_key_that_is_named():
    roster = Roster({"ada": Member("ada"), "bob": Member("bob", fingerprint=PIN)})
    assert roster.admit(Peer("ada", "node", 0.0, key_sha256="cd" * 32)).name == "ada"
    assert roster.admit(Peer("bob", "node", 0.0, key_sha256=PIN)).name == "bob"
    for stranger in (
        Peer("eve", "node", 0.0),
        Peer("ada", "admin", 0.0),
        Peer("bob", "node", 0.0, key_sha256="cd" * 32),
    ):
        with pytest.raises(IdentityError):
            roster.admit(stranger)
