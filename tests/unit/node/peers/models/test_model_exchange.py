"""Models of a coordinator's runs between nodes over real connections: only with its pass, whatever holders do."""

import asyncio
from dataclasses import replace

import grpc
import grpc.aio
import pytest
from cryptography import x509

from covey import messages as msg
from covey.artifact import artifact_of
from covey.errors import CoveyError
from covey.node.models.assembly import Unassembled
from covey.node.models.lending import Lender
from covey.node.peers.models.exchange import ModelExchange
from covey.node.peers.models.listener import ModelListener
from covey.protos import peer_pb2 as pb
from covey.storage.files.artifacts import ArtifactFiles
from covey.testing.launch.ports import free_addresses
from covey.testing.relay import Relay
from covey.wire.channels import channel_credentials, channel_options, key_sha256
from covey.wire.identities.authority import Authority
from covey.wire.identities.model_pass import DOMAIN, ModelPass
from covey.wire.identities.signing import SigningKey
from covey.wire.transfers.chunks import CHUNKS
from tests.unit.node.peers.hostile import ANSWER_S, status_of

MIB = 1 << 20
DATA = bytes(range(256)) * (5 * MIB // 256) + b"rest"
MODEL = artifact_of([DATA[start : start + MIB] for start in range(0, len(DATA), MIB)])
STATUS = grpc.StatusCode
KEY = SigningKey.generate()


class Node:
    """A node of the federation, with its files and its port."""

    def __init__(self, identity, folder, address):
        self.identity, self.address = replace(identity, coordinator_key=KEY.public_bytes), address
        certificate = x509.load_pem_x509_certificate(identity.certificate_pem)
        self.pin = key_sha256(certificate.public_key())
        self.files = ArtifactFiles(folder)
        self.exchange = ModelExchange(self.identity, self.files, address, chunk_s=60.0)

    @property
    def member(self):
        return msg.GossipMember(self.identity.name, self.address, self.pin)

    async def gets(self):
        """The model; from now on others can have it."""
        self.files.put(MODEL, DATA)
        assert await self.exchange.have("run", MODEL)
        return self

    def permit(self, **changes):
        fields = {"federation": self.identity.federation, "run": "run", "node": self.identity.name}
        statement = ModelPass(**({"artifact": MODEL.digest} | fields | changes)).to_bytes()
        return statement, KEY.sign(statement, DOMAIN)

    async def brings(self, *holders, on_bytes=lambda _: None):
        elsewhere = msg.ModelElsewhere(MODEL.digest, tuple(holder.member for holder in holders), *self.permit())
        came = await self.exchange.bring("run", MODEL, elsewhere, on_bytes)
        assert self.files.path(MODEL.digest).read_bytes() == DATA
        return came


@pytest.fixture
async def nodes(identity, tmp_path):
    """Makes nodes, by name."""
    made, addresses = [], free_addresses(5)

    def make(name):
        made.append(Node(identity(name), tmp_path / f"files-{name}", addresses[len(made)]))
        return made[-1]

    yield make
    for node in made:
        await node.exchange.close()


async def test_a_model_comes_from_several_nodes_and_can_then_be_had_from_the_one_that_brought_it(nodes):
    ada, bob, cyd, dan = map(nodes, ("ada", "bob", "cyd", "dan"))
    await asyncio.gather(ada.gets(), bob.gets())
    came = await cyd.brings(ada, bob)
    assert sum(came.given.values()) == MODEL.size_bytes
    assert set(came.given) <= {"ada", "bob"}
    assert came.bytes_per_s.keys() == came.given.keys()
    assert await cyd.exchange.have("run", MODEL)
    assert (await dan.brings(cyd)).given == {"cyd": MODEL.size_bytes}


async def test_a_node_that_is_away_or_has_it_not_or_has_no_address_costs_nothing_but_a_try(nodes):
    ada, bob, cyd, dan = map(nodes, ("ada", "bob", "cyd", "dan"))
    await ada.gets()
    assert await bob.exchange.have("run", artifact_of([b"another"]))
    dan.address = ""
    came = await cyd.brings(bob, dan, ada)
    assert came.given == {"ada": MODEL.size_bytes}
    assert came.liars == ()
    with pytest.raises(Unassembled, match="nobody to ask"):
        await bob.brings(dan)


class StandsStill(Lender):
    """Gives two chunks, and then nothing any more."""

    async def chunks(self, to, digest, first, count):
        async for message in super().chunks(to, digest, first, min(count, 2)):
            yield message
        await asyncio.Event().wait()


async def test_when_one_dies_that_has_given_half_of_what_it_was_asked_for_the_rest_comes_from_another_one(nodes):
    ada, bob, cyd = map(nodes, ("ada", "bob", "cyd"))
    await asyncio.gather(ada.gets(), bob.gets())
    ada.exchange._listener._service._lender = StandsStill(ada.exchange._shelf)
    told = []
    async with Relay(ada.address) as link:
        ada.address = link.address

        def until_all_came_but_what_ada_keeps(size):
            told.append(size)
            if sum(told) == MODEL.size_bytes - 2 * MIB:
                link.partition()  # without a word: the connection is reset, and there is no other one

        came = await cyd.brings(ada, bob, on_bytes=until_all_came_but_what_ada_keeps)
    assert came.given == {"ada": 2 * MIB, "bob": MODEL.size_bytes - 2 * MIB}
    assert (came.broken, came.unreachable, came.liars) == (1, 0, ())
    assert sum(told) == MODEL.size_bytes  # nothing came twice
    assert link.connections == 2  # who answers there is looked at first


@pytest.mark.parametrize("is_known_by_name", [True, False])
async def test_another_node_of_the_authority_at_a_holders_address_is_told_nothing(nodes, identity, is_known_by_name):
    ada, bob, cyd = map(nodes, ("ada", "bob", "cyd"))
    await asyncio.gather(ada.gets(), bob.gets())
    asked = []
    bob.exchange._listener._service._lender.chunks = lambda *request: asked.append(request)
    if is_known_by_name:  # it has a certificate for the right name, and another key
        bob.pin = ada.pin
    else:
        bob.identity = replace(bob.identity, name="dan")
    with pytest.raises(Unassembled, match="could not be asked"):
        await cyd.brings(bob)
    assert (await cyd.brings(bob, ada)).given == {"ada": MODEL.size_bytes}
    assert asked == []


async def test_a_new_model_takes_the_place_of_the_runs_older_one(nodes):
    ada, cyd = map(nodes, ("ada", "cyd"))
    await ada.gets()
    assert await ada.exchange.have("run", artifact_of([b"newer"]))
    with pytest.raises(Unassembled, match="ada could not be asked"):
        await cyd.brings(ada)


async def test_a_holder_that_gives_garbage_is_named_and_never_asked_again(nodes):
    ada, bob, cyd = map(nodes, ("ada", "bob", "cyd"))
    await asyncio.gather(ada.gets(), bob.gets())
    wrong = artifact_of([bytes(MIB)] * 5 + [b"none"])
    ada.exchange._shelf.check = lambda digest: True
    ada.exchange._shelf._models["run"] = replace(MODEL, chunk_sha256=wrong.chunk_sha256)  # it looks, and does not mind
    ada.files.path(MODEL.digest).write_bytes(bytes(5 * MIB) + b"none")
    with pytest.raises(Unassembled, match="ada gave wrong bytes") as refusal:
        await cyd.brings(ada)
    assert refusal.value.liars == ("ada",)
    assert (await cyd.brings(ada, bob)).given == {"bob": MODEL.size_bytes}


async def test_without_an_open_port_models_only_come(nodes, identity, tmp_path):
    ada = await nodes("ada").gets()
    only_calls = Node(identity("cyd"), tmp_path / "cyd", "")
    assert (await only_calls.brings(ada)).given == {"ada": MODEL.size_bytes}
    assert not await only_calls.exchange.have("run", MODEL)


async def test_the_port_is_given_up_and_taken_again(nodes):
    ada, cyd = map(nodes, ("ada", "cyd"))
    await ada.gets()
    await ada.exchange.yield_port()
    other = ModelListener(ada.address, lambda: ada.identity, ada.exchange._shelf)
    await other.open()
    with pytest.raises(CoveyError, match="peer-listen"):
        await ModelListener(ada.address, lambda: ada.identity, ada.exchange._shelf).open()
    assert not await ada.exchange.have("run", MODEL)  # somebody else listens there
    await other.close()
    assert await ada.exchange.have("run", MODEL)
    assert (await cyd.brings(ada)).given == {"ada": MODEL.size_bytes}


# -- hostile ones


async def chunks(node, identity, *, digest=MODEL.digest, count=1, permit=(b"", b"")):
    options = channel_options(f"{node.identity.name}.node.covey", f"hostile-{identity.name}")
    async with grpc.aio.secure_channel(node.address, channel_credentials(identity), options=options) as channel:
        call = channel.unary_stream(
            CHUNKS, request_serializer=pb.ChunksRequest.SerializeToString, response_deserializer=None
        )
        request = pb.ChunksRequest(digest=digest, first=0, count=count, statement=permit[0], signature=permit[1])
        return [message async for message in call(request, timeout=ANSWER_S)]


WRONG_PASSES = {
    "another node's": {"node": "bob"},
    "another file's": {"artifact": "0" * 64},
    "another federation's": {"federation": "1" * 64},
}


async def test_nobody_has_anything_without_a_pass_of_the_coordinator_for_it(nodes, identity, tmp_path):
    ada, eve = await nodes("ada").gets(), nodes("eve")
    for changes in WRONG_PASSES.values():
        refused = chunks(ada, eve.identity, permit=eve.permit(**changes))
        assert await status_of(refused) is STATUS.PERMISSION_DENIED
    statement, signature = eve.permit()
    for permit in (
        (b"", b""),
        (statement, b""),
        (statement, bytes(64)),
        (statement + b" ", signature),
        (b"{}", signature),
    ):
        assert await status_of(chunks(ada, eve.identity, permit=permit)) is STATUS.PERMISSION_DENIED
    forged = SigningKey.generate().sign(statement, DOMAIN)
    assert await status_of(chunks(ada, eve.identity, permit=(statement, forged))) is STATUS.PERMISSION_DENIED
    assert await status_of(chunks(ada, identity("root", "admin"), permit=eve.permit())) is STATUS.PERMISSION_DENIED
    foreign = identity("eve", by=Authority.open(tmp_path / "foreign"))
    with pytest.raises(grpc.aio.AioRpcError):
        await chunks(ada, replace(foreign, authority_pem=ada.identity.authority_pem), permit=eve.permit())
    assert len(await chunks(ada, eve.identity, count=6, permit=eve.permit())) == 6


async def test_who_asks_for_ever_has_a_model_three_times_and_others_have_it_meanwhile(nodes):
    ada, eve, cyd = await nodes("ada").gets(), nodes("eve"), nodes("cyd")
    for _ in range(3):
        assert len(await chunks(ada, eve.identity, count=6, permit=eve.permit())) == 6
    for _ in range(5):
        assert await status_of(chunks(ada, eve.identity, count=6, permit=eve.permit())) is STATUS.UNAVAILABLE
    assert (await cyd.brings(ada)).given == {"ada": MODEL.size_bytes}
