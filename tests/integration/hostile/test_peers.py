"""An enrolled peer, and strangers, against a real gossip node's process: each thing costs only its own messages."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from safetensors.numpy import load_file

from covey.client import authority
from covey.client.gossip_nodes import read_node
from covey.protos import peer_pb2 as pb
from covey.spec import parse_toml
from covey.testing.gossip import GossipNodes
from covey.testing.launch.forks import run_covey
from covey.testing.launch.processes import wait_until
from tests.integration.hostile.peer import ANSWER_S, CHUNK_BYTES, ONE, HostilePeer, Stream

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]
STATUS = grpc.StatusCode
EVE = 2
"""The node whose identity the tests use themselves."""
SPEC = """
name = "gossip"
mode = "gossip"
seed = 3
[task]
name = "digits"
[data]
partition = "shards"
[training]
local_steps = 1
[gossip]
steps = 10
min_nodes = 2
"""


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[GossipNodes]:
    with GossipNodes(tmp_path / "run", SPEC, 3) as made:
        yield made


def calling(nodes: GossipNodes, folder: Path | None = None, spec: str = SPEC) -> HostilePeer:
    """n0 is called, by eve or somebody else."""
    shown = folder or nodes.folder(EVE) / "identity"
    return HostilePeer(nodes.address(0), "n0", shown, parse_toml(spec).to_json())


def body_size(link: Stream, eve: HostilePeer) -> int:
    """What the run's models have: the node says it to whoever offers another size."""
    link.send(eve.offer(b"x"))
    said = re.search(r"this run's have (\d+)", link.take("refused").reason)
    assert said is not None
    return int(said[1])


def up(nodes: GossipNodes, index: int) -> None:
    """Wait until a node answers calls."""
    log = nodes.root / f"{nodes.names[index]}.log"
    assert wait_until(lambda: "ready for peers" in log.read_text(), 60)


def evict_eve(nodes: GossipNodes, *options: str) -> None:
    nodes.cli("ca", "evict", "n2", "--run", "gossip", "--peers", nodes.peers, "--dir", nodes.root / "ca", *options)


def wrong_offers(eve: HostilePeer, size: int) -> dict[str, dict[str, Any]]:
    """What cannot be, by what is wrong with it."""
    whole = 3 * ONE
    return {
        "a terabyte": {"size_bytes": 1 << 40},
        "a byte less": {"size_bytes": size - 1},
        "no table": {"chunk_sha256": b""},
        "another table": {"chunk_sha256": bytes(32)},
        "a table of a million chunks": {"chunk_sha256": bytes(32 << 10)},
        "another digest": {"digest": "0" * 64},
        "a path": {"digest": "../../identity/tls.key"},
        "no digest": {"digest": ""},
        "number 0": {"sequence": 0, "given": eve.given(1, 7)},
        "a number that does not follow": {"sequence": 2},
        "a number that cannot be": {"sequence": (1 << 64) - 1, "given": eve.given(1, 7)},
        "no mass": {"units": 0, "given": eve.given(1, 7)},
        "more than there is": {"units": whole + 1},
        "below zero, as a machine writes it": {"units": (1 << 64) - 1},
        "a step that cannot be": {"step": 1 << 40},
        "half of the body": {"came": b"x" * 10},
        "other bytes": {"came": b"y" * size},
        "too much": {"came": b"x" * 70_000},
        "another sum": {"total": 8},
        "nothing signed": {"given": eve.sign(b"", b"")},
        "signed in another domain": {"given": eve.sign(eve.given(1, 7).statement, b"covey/mass-had/1\n")},
        "of another edge": {"given": eve.given(1, 7, receiver="n1")},
        "of another node": {"given": eve.given(1, 7, sender="n1")},
        "of another life": {"given": eve.given(1, 7, sender_incarnation=2)},
        "of another run": {"given": eve.given(1, 7, run="other")},
        "of a sum below zero": {"given": eve.given(1, 7, units="-7")},
        "of a sum without end": {"given": eve.given(1, 7, units="9" * 5000)},
    }


WRONG_HELLOS: list[dict[str, Any]] = [
    {"wire": 99},
    {"run": "other"},
    {"run": "../../etc"},
    {"specification": "0" * 64},
    {"incarnation": 0},
    {"incarnation": 2},
    {"incarnation": (1 << 32) - 1},
    {"minted": ONE + 1},
]


def says_what_cannot_be(nodes: GossipNodes, eve: HostilePeer) -> None:
    for hello in WRONG_HELLOS:
        stream = eve.stream()
        stream.send(eve.hello(**hello))
        error = stream.ended()
        assert error is not None, hello
        assert error.details(), hello
    for raw in (b"\xff" * 100, b"", b"\x0a\xff\xff\xff\xff\x0f"):
        stream = eve.stream(raw=True)
        stream.send(raw)
        assert stream.ended() is not None
    link = eve.linked()
    size = body_size(link, eve)
    data = np.zeros(size // 4, np.float32).tobytes()
    for what, changes in wrong_offers(eve, size).items():
        link.send(eve.offer(data, **changes))
        refusal = link.take("refused")
        assert refusal.code not in ("", "internal"), (what, refusal)
    for digest in ("0" * 64, "", "../../identity/tls.key"):
        assert eve.push(digest, data) is STATUS.NOT_FOUND
        assert eve.fetch(digest) is STATUS.NOT_FOUND
    for kind in ("grant", "acknowledged", "refused"):  # answers to what was never sent
        for sequence in (0, 1, (1 << 64) - 1):
            message = pb.PeerMessage()
            getattr(message, kind).sequence = sequence
            link.send(message)
    had = eve.sign(eve.given(7, 7).statement, b"covey/mass-had/1\n")
    for gave, took in ((eve.given(7, 7), had), (eve.given(7, 7, sender="n0", receiver="n2"), had)):
        link.send(pb.PeerMessage(statements=pb.PeerStatements(gave=gave, had=had, took=took)))
    link.send(pb.PeerMessage(left=pb.PeerHasLeft(applied=1 << 40)))  # and claims without a proof
    link.send(pb.PeerMessage(progress=pb.PeerProgress(step=3, applied=1 << 40, acknowledged=1 << 40)))
    link.send(eve.offer(b"x"))
    assert link.take("refused")  # so it has read that
    forged = eve.sign(b'{"covey":"eviction/1"}', b"covey/eviction/1\n")
    for statement in (b"", forged.statement, b"[" * 4000):
        answer = eve.notify(statement, forged.signature, forged.certificate)
        assert answer not in (STATUS.OK, STATUS.INTERNAL, STATUS.UNKNOWN), answer


def is_a_stranger(nodes: GossipNodes, eve: HostilePeer) -> None:
    authority.issue(nodes.root / "ca", "mallory", nodes.root / "mallory")
    with calling(nodes, nodes.root / "mallory") as mallory:
        stream = mallory.stream()
        stream.send(mallory.hello())
        assert stream.ended().code() in (STATUS.PERMISSION_DENIED, STATUS.INTERNAL)
        assert mallory.notify(b"", b"", b"") is STATUS.PERMISSION_DENIED
    authority.init(nodes.root / "foreign")
    authority.issue(nodes.root / "foreign", "n2", nodes.root / "impostor")
    with calling(nodes, nodes.root / "impostor") as impostor:
        stream = impostor.stream()
        stream.send(impostor.hello())
        assert stream.ended().code() is STATUS.UNAVAILABLE  # no handshake
    authority.issue(nodes.root / "ca", "n2", nodes.root / "other-key")
    with calling(nodes, nodes.root / "other-key") as other_key:
        assert other_key.notify(b"", b"", b"") is STATUS.PERMISSION_DENIED


def floods(nodes: GossipNodes, eve: HostilePeer) -> None:
    for _ in range(60):
        eve.stream().send(eve.hello())
    for _ in range(200):
        eve.stream()  # half open: nothing is ever said
    link, offer, progress = eve.answered("hello")[0], eve.offer(b"x"), pb.PeerMessage(progress=pb.PeerProgress(step=-2))
    beats = eve.stream("Beat")
    for number in range(3000):
        link.send(progress if number % 10 else offer)  # a step that cannot be: one that can would be waited for
        beats.send(pb.PeerBeat(number=number))


def is_out(eve: HostilePeer) -> None:
    """The notice comes before the refusal, whichever life it says to be; told again and again, it is nothing new."""
    link, _ = eve.answered("eviction")  # in words that older peers know, too
    notice = link.take("eviction")
    assert "is evicted for good: " in link.ended().details()
    for life in (2, 1 << 31):
        link, again = eve.answered("eviction", incarnation=life, minted=0)
        assert again == notice
        assert "n2 is evicted for good: " in link.ended().details()
    for _ in range(5):
        assert not eve.stub.Notify(notice, timeout=ANSWER_S).is_new
    for changed in ("statement", "signature", "certificate"):
        forged = pb.SignedEviction.FromString(notice.SerializeToString())
        setattr(forged, changed, getattr(notice, changed)[:-2] + b"00")
        assert eve.notify(forged.statement, forged.signature, forged.certificate) is STATUS.PERMISSION_DENIED


def models(nodes: GossipNodes) -> list[str]:
    return [read_node(nodes.folder(index)).model_sha256 for index in (0, 1)]


def audit(nodes: GossipNodes) -> dict[str, Any]:
    """Of the two honest nodes; it may find something."""
    command = ["gossip", "audit", nodes.folder(0), nodes.folder(1), "--json"]
    done = run_covey(command, env=dict(os.environ), timeout_s=60)
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if report["exact"] else 1)
    return report


def test_what_a_peer_says_changes_not_one_bit_of_the_run_of_the_others(nodes: GossipNodes, tmp_path: Path) -> None:
    nodes.start(0, options=["--stay"])
    up(nodes, 0)
    for attack in (is_a_stranger, says_what_cannot_be):
        with calling(nodes) as eve:
            attack(nodes, eve)
    with calling(nodes) as eve:
        floods(nodes, eve)
        nodes.start(1, options=["--stay"])  # the run begins in the middle of it
        nodes.until_step(0, 3, 120)
        evict_eve(nodes, "--for-good")
    with calling(nodes) as eve:
        is_out(eve)
    assert wait_until(lambda: all(read_node(nodes.folder(index)).facts.ended for index in (0, 1)), 120)
    assert [text.partition(";")[0] for text in claims_of(nodes, 0)] == [
        f"n2 claims to have had batch {1 << 40} of this node, and that it had batch {1 << 40}"
    ]
    for index in (0, 1):
        nodes.daemon(index).terminate()
    with GossipNodes(tmp_path / "quiet", SPEC, 3) as quiet:
        quiet.start(0)
        quiet.start(1)
        quiet.until_step(0, 3, 120)
        evict_eve(quiet)
        quiet.wait()
        assert models(nodes) == models(quiet)
    mass = audit(nodes)
    assert (mass["live"], mass["in_flight"], mass["lost"], mass["signatures"]) == (2 * ONE, 0, ONE, True)
    assert mass["findings"] == [  # nothing else is wrong with what the honest ones have
        f"n2 gave n0 batch 1 with {3 * ONE + 1} units, by its own signatures; there are {3 * ONE} in all"
    ]
    assert [named["node"] for named in mass["named"]] == ["n2"]


def gives_a_body_up(nodes: GossipNodes, eve: HostilePeer, link: Stream, data: bytes) -> None:
    """Before the last chunk is there it offers another batch: no more is taken, and what came of the first goes."""
    files = nodes.folder(0) / "gossip" / "gossip" / "1" / "files"
    offer, other = (eve.offer(each, units=ONE, came=b"") for each in (data, bytes(len(data))))
    digest = offer.offer.body.digest
    part = files / "spool" / f"{digest}.part"

    def another_offer() -> None:
        assert wait_until(lambda: part.exists() and part.stat().st_size >= CHUNK_BYTES, 60)
        link.send(other)
        assert link.take("grant").digest == other.offer.body.digest

    link.send(offer)
    assert link.take("grant").digest == digest
    assert eve.push(digest, data, before_the_last=another_offer) is not STATUS.OK
    assert not (files / "artifacts" / digest).exists()
    assert not part.exists()  # one unfinished body of a peer stays, the newest
    link.send(offer)
    assert link.take("grant").offset == 0


def give(eve: HostilePeer, link: Stream, data: bytes, answer: str = "acknowledged", **what: Any) -> Any:
    """What becomes of a batch whose body does not come along."""
    offer = eve.offer(data, came=b"", **what)
    link.send(offer)
    grant = link.take("grant")
    assert grant.digest == offer.offer.body.digest
    eve.push(grant.digest, data[grant.offset :], str(grant.offset))
    return link.take(answer)


def is_given_mass(link: Stream, eve: HostilePeer) -> None:
    """The node begins, with it, gives it mass, and has its signature for that."""
    link.send(pb.PeerMessage(progress=pb.PeerProgress(step=0)))
    had = eve.sign(link.take("offer").given.statement, b"covey/mass-had/1\n")
    link.send(pb.PeerMessage(acknowledged=pb.BatchAcknowledged(sequence=1, had=had)))


def claims_of(nodes: GossipNodes, index: int) -> list[str]:
    """What a node says that its peers claim, or did that cannot be."""
    said = json.loads(nodes.cli("gossip", "status", "--data-dir", nodes.folder(index), "--json"))
    claims: list[str] = said["contradictions"]
    return claims


def test_a_peer_that_gives_what_it_has_not_and_denies_what_it_had_is_named_and_its_models_are_passed_over(
    tmp_path: Path,
) -> None:
    spec = SPEC.replace('"digits"', '"digits"\noptions = { hidden = 4000 }')  # bodies of two chunks
    spec = spec.replace("[gossip]", '[gossip]\nprotocol = "agp"')
    with GossipNodes(tmp_path / "run", spec, 3) as nodes:
        nodes.start(0)
        up(nodes, 0)
        with calling(nodes, spec=spec) as eve, eve.beating():
            link = eve.linked()
            size = body_size(link, eve)
            nan, infinite, minus, mixed = (np.full(size // 4, x, np.float32) for x in (np.nan, np.inf, -np.inf, np.nan))
            mixed[0] = 0
            gives_a_body_up(nodes, eve, link, nan.tobytes())
            is_given_mass(link, eve)
            for number, (body, in_all) in enumerate([(nan, 1), (infinite, 2), (minus, 5)], 1):
                units = ONE if number < 3 else 3 * ONE
                answer = give(eve, link, body.tobytes(), sequence=number, units=units, total=in_all * ONE)
                assert answer.had.statement  # for all that n0 knows it may be so
            too_much = {"sequence": 4, "units": 3 * ONE + 1, "total": 8 * ONE + 1}
            assert "there are" in give(eve, link, mixed.tobytes(), "refused", **too_much).reason
            link.send(pb.PeerMessage(left=pb.PeerHasLeft(applied=0)))
            denied = "n2 left, and claims to have had this node's batches up to 0; it signed to have had batch 1"
            assert wait_until(lambda: denied in claims_of(nodes, 0), 60, poll_s=0.5)
        nodes.start(1)
        nodes.until_step(1, 3, 120)
        evict_eve(nodes)


def weights(nodes: GossipNodes, index: int) -> Any:
    path = read_node(nodes.folder(index)).model
    assert path is not None
    return np.concatenate([tensor.ravel() for tensor in load_file(path).values()])
