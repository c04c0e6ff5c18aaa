"""Notices of eviction: who may sign them, and what of them is checked."""

import dataclasses
import time

import pytest

from covey.errors import CoveyError, IdentityError
from covey.wire.evictions import FOR_GOOD, EvictionStatement, SignedNotice, opened_eviction, sign_eviction
from covey.wire.identities.authority import Authority


@pytest.fixture
def statement(authority):
    return EvictionStatement(authority.federation, "digits", "ada", 1, "lost its disk", time.time())


@pytest.fixture
def signed(identity, statement):
    """Makes a notice: `signed(role, **changes)`."""

    def make(role="admin", **changes):
        who = identity("root", role)
        return sign_eviction(dataclasses.replace(statement, **changes), who.key_pem, who.certificate_pem)

    return make


def test_an_admin_may_evict(signed, statement, authority):
    assert opened_eviction(signed(), authority.pem) == statement


def test_what_is_meant_for_an_incarnation_cannot_be_made_one_for_good(signed, statement, authority):
    once, final = signed(), signed(covey=FOR_GOOD)
    assert not opened_eviction(once, authority.pem).is_for_good
    assert opened_eviction(final, authority.pem) == dataclasses.replace(statement, covey=FOR_GOOD)
    assert opened_eviction(final, authority.pem).is_for_good
    with pytest.raises(IdentityError):
        opened_eviction(dataclasses.replace(final, signature=once.signature), authority.pem)
    with pytest.raises(IdentityError, match="not a statement of kind"):
        opened_eviction(signed(covey="eviction/3"), authority.pem)


def test_the_authority_itself_may_evict(tmp_path, statement, authority):
    key = (tmp_path / "authority" / "authority.key").read_bytes()
    assert opened_eviction(sign_eviction(statement, key, authority.pem), authority.pem) == statement


@pytest.mark.parametrize("role", ["node", "auditor"])
def test_others_may_not(signed, authority, role):
    with pytest.raises(IdentityError, match="signed by an admin"):
        opened_eviction(signed(role), authority.pem)


def test_a_certificate_that_was_not_valid_then_does_not_count(signed, authority):
    for at in (time.time() - 86400, time.time() + 86400):
        with pytest.raises(IdentityError):
            opened_eviction(signed(at=at), authority.pem)


def test_an_authority_of_the_same_name_is_another_one(statement, authority, tmp_path):
    other = Authority.open(tmp_path / "other")
    key = (tmp_path / "other" / "authority.key").read_bytes()
    with pytest.raises(IdentityError):
        opened_eviction(sign_eviction(statement, key, other.pem), authority.pem)


@pytest.mark.parametrize(
    "notice", [SignedNotice(b"", b"", b""), SignedNotice(b"{}", b"x", b"x"), SignedNotice(b"[" * 9000, b"", b"" * 9)]
)
def test_garbage_is_refused(notice, authority):
    with pytest.raises(CoveyError):
        opened_eviction(notice, authority.pem)
