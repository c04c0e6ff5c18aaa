"""Certificates are renewed for the same name only."""

import pytest
from cryptography import x509

from covey.coordinator.nodes.enrolment import UNPROVEN, renew
from covey.errors import Conflict, IdentityError, NotFound
from covey.protos import coordinator_pb2 as pb
from covey.wire.channels import Peer
from covey.wire.identities.signing import key_id
from tests.unit.coordinator.nodes.enrolment.tokens import token_for

ALPHA, BETA = (Peer(name, "node", 1e12, f"serial of {name}") for name in ("alpha", "beta"))


@pytest.fixture
def renewal_of(request_of):
    def make(folder):
        asked = request_of(bytes(32), folder)
        return pb.RenewRequest(csr=asked.csr, signing_key=asked.signing_key, signing_proof=asked.signing_proof)

    return make


async def test_a_certificate_is_renewed_for_the_same_name(env, listen, request_of, renewal_of):
    ask = await listen()
    first = await ask(request_of(await token_for(env), "old"))
    old, new = renewal_of("old"), renewal_of("new")
    for asked in (old, new, new):
        reply = await renew(env, ALPHA, asked)
        certificate = x509.load_pem_x509_certificate(reply.certificate)
        assert certificate.public_key() == x509.load_der_x509_csr(asked.csr).public_key()
        assert (reply.name, reply.role) == ("alpha", "node")
        assert reply.certificate != first.certificate
        record = await env.store.call(env.store.store.node, "alpha")
        assert record.signing_key == asked.signing_key
        assert int(record.certificate_serial, 16) == certificate.serial_number
        assert record.previous_serial == ALPHA.serial
    for asked in (old, new):
        kept = await env.store.call(env.store.store.signing_key, key_id(asked.signing_key))
        assert kept == asked.signing_key


async def test_nobody_renews_who_is_out_or_proves_nothing(env, listen, request_of, renewal_of):
    ask = await listen()
    await ask(request_of(await token_for(env), "mine"))
    mine, other = renewal_of("mine"), renewal_of("other")
    forged = pb.RenewRequest(csr=mine.csr, signing_key=other.signing_key, signing_proof=mine.signing_proof)
    with pytest.raises(IdentityError, match=UNPROVEN):
        await renew(env, ALPHA, forged)
    with pytest.raises(NotFound):
        await renew(env, BETA, mine)
    await env.store.call(env.store.store.set_node_state, "alpha", "evicted")
    with pytest.raises(IdentityError, match="not enrolled any more"):
        await renew(env, ALPHA, mine)


async def test_another_ones_signing_key_is_not_taken_at_renewal(env, listen, request_of, renewal_of):
    ask = await listen()
    await ask(request_of(await token_for(env, "alpha"), "alpha"))
    await ask(request_of(await token_for(env, "beta"), "beta"))
    with pytest.raises(Conflict, match="another identity"):
        await renew(env, BETA, renewal_of("alpha"))
