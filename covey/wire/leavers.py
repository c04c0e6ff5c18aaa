"""Farewells: what a leaver of a gossip run signed, checked by whoever hears it from anybody."""

from __future__ import annotations

from cryptography import x509

from covey.errors import IdentityError
from covey.gossip.receipts import SignedMass
from covey.wire.certified import issued, verify
from covey.wire.identities.authority import federation_of
from covey.wire.identities.leaver_statement import MAX_STATEMENT_BYTES, LeaverStatement

LEFT = b"covey/left/1\n"
"""What is signed begins with it."""
MAX_SIGNED_BYTES = MAX_STATEMENT_BYTES + (8 << 10)
"""With its signature and certificate."""


def opened_leaver(signed: SignedMass, run: str, authority_pem: bytes) -> LeaverStatement:
    """What a farewell from anybody says, once all about it was checked: nobody but the leaver can have made it.

    Args:
        signed: It.
        run: Of which run it must be.
        authority_pem: Whose nodes count.

    Raises:
        IdentityError: It does not count; the text says why.
        LimitExceeded: It is too long.
    """
    if sum(map(len, (signed.statement, signed.signature, signed.certificate))) > MAX_SIGNED_BYTES:
        raise IdentityError("a farewell is longer than any that could be right")
    statement = LeaverStatement.from_bytes(signed.statement)
    if statement.run != run or statement.federation != federation_of(x509.load_pem_x509_certificate(authority_pem)):
        raise IdentityError("a farewell is of another run or federation")
    certificate, peer = issued(signed.certificate, authority_pem)
    if (peer.name, peer.role) != (statement.node, "node"):
        raise IdentityError(f"the farewell of {statement.node!r} is signed by {peer.name!r}")
    verify(certificate, LEFT + signed.statement, signed.signature)
    return statement
