"""The two listeners' bounds, and whose calls they count."""

from __future__ import annotations

from typing import Any, cast

import pytest

from covey.coordinator.nodes.door import ENROLMENT, MAIN, MOST_CALLS, enrolment_options, main_guard, main_options
from covey.errors import IdentityError
from covey.storage.record.contract import NodeRecord
from covey.wire.channels import certified_peer
from covey.wire.listeners.call_limits import Caller
from covey.wire.listeners.connections import Connections


class Call:
    """A call with a certificate."""

    def __init__(self, identity):
        self._pem = identity.certificate_pem

    def auth_context(self):
        return {"x509_pem_cert": [self._pem]}


def test_every_kind_of_callers_finds_its_room_whatever_the_others_do():
    both = [*MAIN.values(), *ENROLMENT.values()]  # of one port
    assert sum(allowance.total for allowance in both) < MOST_CALLS
    assert all(allowance.each <= allowance.total for allowance in both)
    assert MAIN.keys() == {"node", "admin", "auditor", "member"}


def test_who_enrols_stays_for_a_moment_only():
    main, enrolment = dict(main_options()), dict(enrolment_options())
    assert "grpc.max_connection_age_ms" not in main
    assert enrolment["grpc.max_connection_age_ms"] == 60_000
    assert enrolment["grpc.max_concurrent_streams"] < main["grpc.max_concurrent_streams"]


async def test_calls_are_counted_by_who_is_on_record(world, identity):
    guard, ada, bob = main_guard(world.members, lambda: 0.0, Connections()), identity("ada"), identity("bob")
    serial = certified_peer(ada.certificate_pem).serial
    world.members.register(NodeRecord("ada", "node", "active", 1.0, certificate_serial=serial))
    assert guard._who(cast(Any, Call(ada))) == Caller("node", "ada")
    with pytest.raises(IdentityError, match="record"):
        guard._who(cast(Any, Call(bob)))
