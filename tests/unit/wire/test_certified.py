"""What anybody may say on, signed by the key of a certificate: of every kind, each check refuses by itself."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from covey.errors import CoveyError, IdentityError
from covey.wire.certified import Kind, certified_key, opened, sign
from covey.wire.evictions import EVICTED, EvictionStatement
from covey.wire.identities.authority import Authority
from covey.wire.identities.leaver_statement import LeaverStatement
from covey.wire.mass_receipts import GAVE, HAD, LEFT, MassStatement

MASS = MassStatement("", "digits", "ada", 1, "bob", 2, 7, "5")
LEAVER = LeaverStatement("", "digits", "ada", 1, "0", ())
OUT = EvictionStatement("", "digits", "ada", 1, "lost its disk", 0.0)
KINDS: dict[str, tuple[Kind[Any], Any, str]] = {
    "gave": (GAVE, MASS, "ada"),
    "had": (HAD, MASS, "bob"),
    "left": (LEFT, LEAVER, "ada"),
    "out": (EVICTED, OUT, ""),
}
"""Of each: a statement without its federation, and the node that has to sign; empty: an admin."""


@dataclass(frozen=True)
class Shown:
    """What comes from anybody."""

    statement: bytes
    signature: bytes
    certificate: bytes


@pytest.fixture(params=KINDS)
def case(request, authority):
    kind, statement, node = KINDS[request.param]
    now = {"at": time.time()} if statement is OUT else {}
    return kind, replace(statement, federation=authority.federation, **now), node


@pytest.fixture
def shown(identity):
    """Signs as somebody: `shown(statement, domain, name, role, by=authority)`."""

    def make(statement, domain, name, role, **options):
        who, raw = identity(name, role, **options), statement.to_bytes()
        certificate = x509.load_pem_x509_certificate(who.certificate_pem).public_bytes(serialization.Encoding.DER)
        return Shown(raw, sign(certified_key(who.key_pem), domain + raw), certificate)

    return make


@pytest.fixture
def right(case, shown):
    kind, statement, node = case
    return shown(statement, kind.domain, *signer(node))


@pytest.fixture
def refused(case, authority):
    def check(what, match, run="digits"):
        with pytest.raises(IdentityError, match=match):
            opened(what, case[0], authority.pem, run)

    return check


def signer(node: str) -> tuple[str, str]:
    return (node, "node") if node else ("root", "admin")


def test_what_is_right_is_read(case, right, authority):
    kind, statement, _ = case
    assert opened(right, kind, authority.pem, "digits") == statement
    assert opened(right, kind, authority.pem, None) == statement


def test_another_run(right, refused):
    refused(right, "is of another run", run="letters")
    refused(right, "is of another run", run="")


def test_another_federation_whoever_signs(case, shown, refused, tmp_path):
    kind, statement, node = case
    other = Authority.open(tmp_path / "other")
    elsewhere = replace(statement, federation=other.federation)
    refused(shown(elsewhere, kind.domain, *signer(node)), "is of another federation")
    refused(shown(elsewhere, kind.domain, *signer(node), by=other), "is of another federation")


def test_a_certificate_of_another_authority(case, shown, refused, tmp_path):
    kind, statement, node = case
    other = Authority.open(tmp_path / "other")
    refused(shown(statement, kind.domain, *signer(node), by=other), "not issued by this federation's authority")


def test_somebody_else_of_the_federation(case, shown, refused):
    kind, statement, node = case
    for name, role in [("eve", "node"), (node or "root", "auditor"), *([(node, "admin")] if node else [])]:
        has_to = f"signed by {role} '{name}', and node '{node}' has to" if node else f"is a {role}: .* by an admin"
        refused(shown(statement, kind.domain, name, role), has_to)


def test_a_signature_of_another_key_or_of_something_else(case, right, shown, refused):
    kind, statement, node = case
    forged = shown(statement, kind.domain, "eve", "node").signature
    elsewhere = shown(replace(statement, run="letters"), kind.domain, *signer(node)).signature
    for signature in (forged, elsewhere, b"", bytes(64)):
        refused(replace(right, signature=signature), "not signed by the key of its certificate")


def test_no_signature_stands_for_another_kind(case, shown, refused):
    kind, statement, node = case
    others = [other for other, _, _ in KINDS.values() if other is not kind]
    for domain in (*(other.domain for other in others), b""):
        refused(shown(statement, domain, *signer(node)), "not signed by the key of its certificate")


@pytest.mark.parametrize("field", ["signature", "certificate"])
def test_what_is_too_long_is_not_read(case, right, refused, authority, field):
    most = case[0].max_bytes - sum(map(len, vars(right).values()))
    longest = getattr(right, field) + bytes(most)
    with pytest.raises(IdentityError) as error:  # short enough to be looked at, and still nothing
        opened(replace(right, **{field: longest}), case[0], authority.pem, "digits")
    assert "longer" not in str(error.value)
    refused(replace(right, statement=b"[", **{field: longest + right.statement}), "longer than any that could be right")


@pytest.mark.parametrize("field", ["statement", "signature", "certificate"])
def test_every_byte_counts(case, right, authority, field):
    whole = getattr(right, field)
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        broken = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        with pytest.raises(CoveyError):
            opened(replace(right, **{field: broken}), case[0], authority.pem, "digits")
