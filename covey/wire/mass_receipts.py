"""What one node gave another in a gossip run, signed by both: cumulative, so the newest one of an edge says it all.

The sender signs what it gave, and the batch's offer brings that along; the receiver signs the same statement when it
has the batch, and its acknowledgement brings that back. So neither can later deny what it said to the other. Both keep
what the other one signed. Who leaves signs its whole account, for all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from pydantic import Field, TypeAdapter, with_config

from covey.gossip.ledger import Incarnation, Ledger
from covey.gossip.receipts import Receipt, SignedMass
from covey.wire.certified import Kind, certified_key, of_node, opened, sign
from covey.wire.identities.authority import federation_of
from covey.wire.identities.canonical import MAX_BYTES, MAX_COUNT, STRICT, Text, canonical_json, read_canonical
from covey.wire.identities.identity import Identity
from covey.wire.identities.leaver_statement import MAX_STATEMENT_BYTES as MAX_LEAVER_BYTES
from covey.wire.identities.leaver_statement import LeaverStatement

MAX_STATEMENT_BYTES = 2048
_Number = Annotated[int, Field(ge=1, lt=MAX_COUNT)]


@with_config(STRICT)
@dataclass(frozen=True)
class MassStatement:
    """That along an edge so much was given, up to a batch."""

    federation: Text
    run: Text
    sender: Text
    sender_incarnation: _Number
    receiver: Text
    receiver_incarnation: _Number
    sequence: Annotated[int, Field(ge=1, lt=MAX_BYTES)]
    """Of the newest batch."""
    units: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,38}$")]
    """Of all batches up to it, in units of 2^-52; decimal digits, for it may exceed what JSON's readers hold."""
    covey: Literal["mass/1"] = field(default="mass/1", kw_only=True, repr=False)

    def to_bytes(self) -> bytes:
        """The statement's canonical bytes."""
        return canonical_json(vars(self))

    @classmethod
    def from_bytes(cls, raw: bytes) -> MassStatement:
        """Read a statement from anybody.

        Raises:
            IdentityError: It is none.
            LimitExceeded: It is too long.
        """
        return read_canonical(_MASS, raw, "mass/1", MAX_STATEMENT_BYTES)

    @property
    def receipt(self) -> Receipt:
        """What it says of the edge."""
        sender = Incarnation(self.sender, self.sender_incarnation)
        receiver = Incarnation(self.receiver, self.receiver_incarnation)
        return Receipt(sender, receiver, self.sequence, int(self.units))


_MASS = TypeAdapter(MassStatement)
GAVE = Kind(
    "what is said of the mass",
    b"covey/mass-given/1\n",
    8 << 10,
    MassStatement.from_bytes,
    lambda statement, shown, authority_pem: of_node(statement.sender, shown, authority_pem),
)
HAD = replace(
    GAVE,
    domain=b"covey/mass-had/1\n",
    signer=lambda statement, shown, authority_pem: of_node(statement.receiver, shown, authority_pem),
)
LEFT = Kind(
    "a farewell",
    b"covey/left/1\n",
    MAX_LEAVER_BYTES + (8 << 10),
    LeaverStatement.from_bytes,
    lambda statement, shown, authority_pem: of_node(statement.node, shown, authority_pem),
)


class Notary:
    """Signs one node's statements in one run, and checks those of others.

    Args:
        identity: The node's.
        run: The run's name.
    """

    def __init__(self, identity: Identity, run: str) -> None:
        certificate = x509.load_pem_x509_certificate(identity.certificate_pem)
        self._certificate = certificate.public_bytes(serialization.Encoding.DER)
        self._key = certified_key(identity.key_pem)
        self._authority_pem, self._run = identity.authority_pem, run
        self._federation = federation_of(x509.load_pem_x509_certificate(identity.authority_pem))

    def sign_given(self, receipt: Receipt) -> SignedMass:
        """What this node gave."""
        sender, receiver = receipt.sender, receipt.receiver
        edge = (sender.node, sender.number, receiver.node, receiver.number)
        raw = MassStatement(self._federation, self._run, *edge, receipt.sequence, str(receipt.units)).to_bytes()
        return SignedMass(raw, sign(self._key, GAVE.domain + raw), self._certificate)

    def sign_had(self, statement: bytes) -> SignedMass:
        """That this node had what a sender's statement says."""
        return SignedMass(statement, sign(self._key, HAD.domain + statement), self._certificate)

    def sign_left(self, me: Incarnation, ledger: Ledger) -> SignedMass:
        """That this node has left, with its account."""
        raw = LeaverStatement.of(self._federation, self._run, me, ledger).to_bytes()
        return SignedMass(raw, sign(self._key, LEFT.domain + raw), self._certificate)

    def open_left(self, signed: SignedMass) -> LeaverStatement:
        """What somebody signed who left. Raises as `opened`."""
        return opened(signed, LEFT, self._authority_pem, self._run)

    def open_given(self, signed: SignedMass) -> Receipt:
        """What a sender signed. Raises as `opened`."""
        return opened(signed, GAVE, self._authority_pem, self._run).receipt

    def open_had(self, signed: SignedMass) -> Receipt:
        """What a receiver signed. Raises as `opened`."""
        return opened(signed, HAD, self._authority_pem, self._run).receipt
