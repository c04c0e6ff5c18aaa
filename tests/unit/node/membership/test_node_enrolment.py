import stat
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from covey.errors import Conflict, CoveyError, IdentityError
from covey.node.membership.enrolment import EnrolmentUnreachable, enrol, join, leave
from covey.node.operator.config import NodeConfig
from covey.protos import coordinator_pb2 as pb
from covey.protos import coordinator_pb2_grpc
from covey.storage.files.data_lock import held
from covey.wire.errors import CODE_KEY
from covey.wire.identities.authority import Authority, key_of_request
from covey.wire.identities.identity import ENROL_DOMAIN, Identity, tls_key_in
from covey.wire.identities.signing import SigningKey, verify
from covey.wire.identities.tokens import JoinToken

COORDINATOR_KEY = SigningKey.generate()


class Listener(coordinator_pb2_grpc.EnrolmentServicer):
    """An enrolment listener that certifies whatever key it is sent, and can be told to misbehave once."""

    def __init__(self, folder):
        self.authority = Authority.open(folder / "keys")
        self.requests = []
        self.next_abort = None
        self.certified_key = None
        self.name = "hospital-a"
        key = tls_key_in(folder / "server.key")
        issued = self.authority.issue("coordinator", "coordinator", key.public_key())
        credentials = grpc.ssl_server_credentials([((folder / "server.key").read_bytes(), issued.pem)])
        self.server = grpc.server(ThreadPoolExecutor(2))
        coordinator_pb2_grpc.add_EnrolmentServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_secure_port('127.0.0.1:0', credentials)}"
        self.server.start()

    def Enrol(self, request, context):
        self.requests.append(request)
        verify(request.signing_key, request.csr, request.signing_proof, ENROL_DOMAIN)
        if self.next_abort:
            status, code = self.next_abort
            self.next_abort = None
            if code:
                context.set_trailing_metadata(((CODE_KEY, code),))
            context.abort(status, "not now")
        key = self.certified_key or key_of_request(request.csr)
        return pb.EnrolReply(
            name=self.name,
            role="node",
            certificate=self.authority.issue(self.name, "node", key).pem,
            authority=self.authority.pem,
            federation=self.authority.federation,
            coordinator_key=COORDINATOR_KEY.public_bytes,
        )

    def token(self, **changes):
        token = JoinToken(
            "hospital-a",
            "node",
            "covey.example.org:7400",
            self.address,
            self.authority.pem,
            b"s" * 32,
            time.time() + 60,
        )
        return replace(token, **changes).encode()


@pytest.fixture
def listener(tmp_path):
    made = Listener(tmp_path)
    yield made
    made.server.stop(None).wait()


def test_joining_makes_an_identity_and_the_settings(listener, tmp_path):
    identity = join(listener.token(), tmp_path / "node")
    assert (identity.name, identity.role, identity.server) == ("hospital-a", "node", "covey.example.org:7400")
    assert identity.federation == listener.authority.federation
    assert identity.coordinator_key == COORDINATOR_KEY.public_bytes
    assert identity.explain() == ""
    for name in ("tls.key", "signing.key"):
        assert stat.S_IMODE((tmp_path / "node" / "identity" / name).stat().st_mode) == 0o600
    assert NodeConfig.load(tmp_path / "node").settings == NodeConfig(tmp_path).settings
    assert listener.requests[0].token_secret == b"s" * 32


def test_joining_keeps_settings_that_are_there(listener, tmp_path):
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "node.toml").write_text("[policy]\ntasks = []\n")
    join(listener.token(), tmp_path / "node")
    assert NodeConfig.load(tmp_path / "node").policy.tasks == ()


def test_a_folder_that_cannot_be_made_is_named(listener, tmp_path):
    (tmp_path / "node").write_text("a file")
    with pytest.raises(CoveyError, match=r"keys cannot be written into .*name a folder that this user may write"):
        join(listener.token(), tmp_path / "node")
    assert listener.requests == []


def test_a_folder_with_an_identity_is_left_alone(listener, tmp_path):
    join(listener.token(), tmp_path / "node")
    with pytest.raises(Conflict, match="holds the identity of 'hospital-a' already"):
        join(listener.token(), tmp_path / "node")


def test_a_lost_answer_is_asked_for_again_with_the_same_keys(listener, tmp_path):
    listener.next_abort = (grpc.StatusCode.UNAVAILABLE, "")
    with pytest.raises(EnrolmentUnreachable, match="--advertise-enrol"):
        join(listener.token(), tmp_path / "node")
    expired_since = listener.token(expires_at=time.time() - 1)
    assert join(expired_since, tmp_path / "node").explain() == ""
    first, second = listener.requests
    assert first.signing_key == second.signing_key
    assert key_of_request(first.csr) == key_of_request(second.csr)


def test_a_busy_listener_is_asked_again(listener, tmp_path):
    listener.next_abort = (grpc.StatusCode.RESOURCE_EXHAUSTED, "limit-exceeded")
    assert join(listener.token(), tmp_path / "node").name == "hospital-a"
    assert len(listener.requests) == 2


def test_a_refusal_is_told(listener, tmp_path):
    listener.next_abort = (grpc.StatusCode.PERMISSION_DENIED, "identity")
    with pytest.raises(IdentityError, match="not now"):
        join(listener.token(), tmp_path / "node")


def test_a_certificate_for_another_key_or_name_is_not_taken(listener, tmp_path):
    listener.certified_key = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(IdentityError, match="something else than was asked"):
        join(listener.token(), tmp_path / "node")
    listener.certified_key, listener.name = None, "hospital-b"
    with pytest.raises(IdentityError, match="something else than was asked"):
        join(listener.token(), tmp_path / "node")
    with pytest.raises(IdentityError, match="there is no identity"):
        Identity.load(tmp_path / "node" / "identity")


def test_a_listener_of_another_authority_is_not_trusted(listener, tmp_path):
    foreign = Authority.open(tmp_path / "foreign")
    with pytest.raises(EnrolmentUnreachable):
        join(listener.token(authority_pem=foreign.pem), tmp_path / "node")
    assert listener.requests == []


def test_tokens_that_cannot_be_used(listener, tmp_path):
    with pytest.raises(IdentityError, match="should begin with covey1"):
        join("hello", tmp_path / "node")
    with pytest.raises(IdentityError, match="damaged"):
        join(listener.token()[:-40], tmp_path / "node")
    with pytest.raises(IdentityError, match="has expired"):
        join(listener.token(expires_at=time.time() - 1), tmp_path / "node")
    with pytest.raises(IdentityError, match="for role 'admin'"):
        join(listener.token(role="admin"), tmp_path / "node")
    assert not (tmp_path / "node").exists()
    assert listener.requests == []


def test_enrol_makes_only_the_identity(listener, tmp_path):
    identity = enrol(listener.token(), tmp_path / "me")
    assert identity.name == "hospital-a"
    assert not (tmp_path / "me" / "node.toml").exists()


def test_who_runs_does_not_leave(listener, tmp_path):
    join(listener.token(), tmp_path / "node")
    with (
        held(tmp_path / "node", "node"),
        pytest.raises(Conflict, match=r"hospital-a cannot leave while its daemon runs: .* stop that one"),
    ):
        leave(tmp_path / "node")
    assert Identity.load(tmp_path / "node" / "identity").name == "hospital-a"


def test_leaving_deletes_the_keys_and_keeps_the_rest(listener, tmp_path):
    join(listener.token(), tmp_path / "node")
    (tmp_path / "node" / "data.bin").write_bytes(b"mine")
    assert leave(tmp_path / "node").name == "hospital-a"
    assert not (tmp_path / "node" / "identity").exists()
    assert sorted(path.name for path in (tmp_path / "node").iterdir()) == ["daemon.lock", "data.bin", "node.toml"]
    with pytest.raises(IdentityError, match="there is no identity"):
        leave(tmp_path / "node")
