"""Who is let in: the newest certificate of somebody on record, in the role of the record."""

from __future__ import annotations

import pytest

from covey.coordinator.nodes.members import OVERLAP_S, Members
from covey.errors import IdentityError
from covey.storage.record.contract import NodeRecord
from covey.wire.channels import Peer

NOW, END = 1000.0, 1e9


@pytest.fixture
def members(world):
    """ada is on record with certificate 2; nobody else is."""
    return Members(world.store, (), [NodeRecord("ada", "node", "active", 1.0, certificate_serial="2")])


def shown(serial="2", name="ada", role="node", key="", expires_at=END):
    return Peer(name, role, expires_at, serial, key)


def refused(members, peer, why, now=NOW):
    with pytest.raises(IdentityError, match=why):
        members.admit(peer, now)


def test_the_newest_certificate_of_somebody_on_record_is_good(members):
    members.admit(shown(), NOW)
    refused(members, shown("3"), "not its newest")
    refused(members, shown(""), "not its newest")
    refused(members, shown(name="bob"), "not on this coordinator's record")
    refused(members, shown(role="admin"), "on record as node")
    refused(members, shown(expires_at=NOW), "expired")
    members.evict("ada")
    refused(members, shown(), "evicted")


def test_who_is_evicted_loses_its_connections(members):
    told = []
    members.on_evicted = told.append
    members.evict("ada")
    assert told == ["ada"]


def test_an_own_identity_of_this_machine_is_known_by_its_key(members):
    members.own_keys = {("local-admin", "admin"): "k"}
    members.admit(shown("9", "local-admin", "admin", "k"), NOW)
    refused(members, shown("9", "local-admin", "admin", "other"), "not on this coordinator's record")
    refused(members, shown("9", "local-admin", "node", "k"), "not on this coordinator's record")


def test_the_old_certificate_ends_a_moment_after_the_new_one_is_used(members):
    members.renewed("ada", "3", "2")
    # As long as nobody has used the new one its owner may not have it: killed before the answer, for however long.
    members.admit(shown("2"), NOW + 1e6)
    assert not members.settles(shown("2"))
    members.admit(shown("3"), NOW)
    assert members.settles(shown("3"))
    assert not members.settles(shown("3"))
    members.admit(shown("2"), NOW + OVERLAP_S)
    refused(members, shown("2"), "not its newest", NOW + OVERLAP_S + 1)
    members.admit(shown("3"), NOW + OVERLAP_S + 1)


def test_a_renewal_that_got_lost_can_be_asked_for_again(members):
    members.renewed("ada", "3", "2")
    members.renewed("ada", "4", "2")
    members.admit(shown("2"), NOW)
    refused(members, shown("3"), "not its newest")
    members.admit(shown("4"), NOW)


def test_what_the_record_says_of_a_renewal_survives_a_restart(world):
    record = NodeRecord("ada", "node", "active", 1.0, certificate_serial="3", previous_serial="2")
    members = Members(world.store, (), [record])
    members.admit(shown("2"), NOW)
    members.admit(shown("3"), NOW)
    refused(members, shown("2"), "not its newest", NOW + OVERLAP_S + 1)
