import stat
import time

import grpc
import pytest

from covey.errors import IdentityError
from covey.node.membership.joining import TOKEN_FILE, NoToken, join_when_new
from covey.wire.identities.authority import key_of_request
from covey.wire.identities.identity import Identity
from tests.unit.node.membership.test_node_enrolment import Listener


@pytest.fixture
def coordinator(tmp_path):
    made = Listener(tmp_path)
    made.name = "node-1"
    yield made
    made.server.stop(None).wait()


@pytest.fixture
def token(coordinator, tmp_path):
    """A file with a token that is for three machines."""
    return put(coordinator, tmp_path / "shared.token")


def put(coordinator, path, **changes):
    path.write_text(coordinator.token(**{"name": "node", "uses": 3} | changes))
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def joined(data_dir):
    """The name, once nothing but the identity is left of joining."""
    assert TOKEN_FILE not in names(data_dir)
    return Identity.load(data_dir / "identity").name


def test_a_token_in_a_file_is_used_and_left_where_it_is(coordinator, tmp_path):
    coordinator.name = "hospital-a"
    path = put(coordinator, tmp_path / "own.token", name="hospital-a", uses=1)
    join_when_new(tmp_path / "data", path)
    assert joined(tmp_path / "data") == "hospital-a"
    assert path.exists()


def test_several_machines_use_one_file(coordinator, token, tmp_path):
    token.chmod(0o400)
    for name in ("node-1", "node-2"):
        coordinator.name = name
        join_when_new(tmp_path / name, token)
        assert joined(tmp_path / name) == name
    assert len({request.signing_key for request in coordinator.requests}) == 2
    assert {request.token_secret for request in coordinator.requests} == {b"s" * 32}


def test_a_name_that_the_token_does_not_promise_is_not_taken(coordinator, token, tmp_path):
    for name in ("node", "node-1-1", "hospital-1"):
        coordinator.name = name
        with pytest.raises(IdentityError, match="something else than was asked"):
            join_when_new(tmp_path / name, token)


def test_with_an_identity_the_token_is_left_alone(coordinator, token, tmp_path):
    join_when_new(tmp_path / "data", token)
    (tmp_path / "data" / TOKEN_FILE).write_text("left by a start that was killed when it had joined")
    join_when_new(tmp_path / "data", token)
    assert joined(tmp_path / "data") == "node-1"
    assert len(coordinator.requests) == 1
    join_when_new(tmp_path / "data", tmp_path / "nothing-there")


def test_a_kept_token_needs_no_file_any_more(coordinator, token, tmp_path):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    token.rename(data_dir / TOKEN_FILE)
    join_when_new(data_dir, tmp_path / "nothing-there")
    assert joined(data_dir) == "node-1"


def test_a_kept_token_is_secret(token, tmp_path, monkeypatch):
    def refuse(folder, kept):
        assert kept == token.read_text()
        assert stat.S_IMODE((folder / TOKEN_FILE).stat().st_mode) == 0o600
        raise RuntimeError("seen")

    monkeypatch.setattr("covey.node.membership.joining._enrol", refuse)
    with pytest.raises(RuntimeError, match="seen"):
        join_when_new(tmp_path / "data", token)


def test_where_there_is_no_token_the_error_says_what_to_do(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(NoToken, match=r"folder is a folder; .*covey coordinator token --uses N"):
        join_when_new(tmp_path / "data", tmp_path / "folder")
    with pytest.raises(NoToken, match="is not there; give --join a file"):
        join_when_new(tmp_path / "data", tmp_path / "nothing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(IdentityError, match="should begin with covey1"):
        join_when_new(tmp_path / "data", tmp_path / "text")
    assert names(tmp_path / "data") == []


def test_a_coordinator_that_is_away_is_waited_for_with_the_same_keys(coordinator, token, tmp_path, capsys):
    coordinator.next_abort = (grpc.StatusCode.UNAVAILABLE, "")
    join_when_new(tmp_path / "data", token)
    assert joined(tmp_path / "data") == "node-1"
    first, second = coordinator.requests
    assert first.signing_key == second.signing_key
    assert key_of_request(first.csr) == key_of_request(second.csr)
    assert "cannot enrol yet" in capsys.readouterr().out


def test_a_database_that_is_away_is_waited_for(coordinator, token, tmp_path):
    coordinator.next_abort = (grpc.StatusCode.UNAVAILABLE, "store-unavailable")
    join_when_new(tmp_path / "data", token)
    assert joined(tmp_path / "data") == "node-1"


@pytest.mark.parametrize("code", ["identity", "conflict"])
def test_a_token_that_is_refused_for_good_is_dropped_and_the_next_start_reads_another(
    coordinator, token, tmp_path, code
):
    coordinator.next_abort = (grpc.StatusCode.PERMISSION_DENIED, code)
    with pytest.raises(IdentityError, match=r"not now \(this machine's join token was refused; put another one"):
        join_when_new(tmp_path / "data", token)
    assert TOKEN_FILE not in names(tmp_path / "data")
    coordinator.name = "site-1"
    put(coordinator, token, name="site")
    join_when_new(tmp_path / "data", token)
    assert joined(tmp_path / "data") == "site-1"


def test_a_token_of_another_authority_is_not_used(coordinator, token, tmp_path):
    (tmp_path / "foreign").mkdir()
    other = Listener(tmp_path / "foreign")
    foreign = put(other, tmp_path / "foreign.token")
    (tmp_path / "authority.crt").write_bytes(coordinator.authority.pem)
    with pytest.raises(NoToken, match="of another authority"):
        join_when_new(tmp_path / "data", foreign, tmp_path / "authority.crt")
    assert names(tmp_path / "data") == []
    join_when_new(tmp_path / "data", token, tmp_path / "authority.crt")
    assert joined(tmp_path / "data") == "node-1"
    assert other.requests == []
    other.server.stop(None).wait()


def test_what_is_not_an_authoritys_certificate_is_named(token, tmp_path):
    (tmp_path / "authority.crt").write_text("hello")
    with pytest.raises(NoToken, match=r"authority\.crt is not an authority's certificate"):
        join_when_new(tmp_path / "data", token, tmp_path / "authority.crt")


def test_keys_that_cannot_be_used_cost_no_token(coordinator, token, tmp_path):
    identity = tmp_path / "data" / "identity"
    identity.mkdir(parents=True)
    (identity / "tls.key").write_text("damaged")
    with pytest.raises(IdentityError, match=r"tls\.key cannot be read as a private key"):
        join_when_new(tmp_path / "data", token)
    assert coordinator.requests == []


def test_a_data_directory_that_cannot_be_written_is_named(token, tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(NoToken, match=r"must be able to write to .*data"):
        join_when_new(tmp_path / "data", token)


def test_an_expired_token_in_a_file_is_refused(coordinator, tmp_path):
    path = put(coordinator, tmp_path / "old.token", expires_at=time.time() - 1)
    with pytest.raises(IdentityError, match="has expired"):
        join_when_new(tmp_path / "data", path)
    assert names(tmp_path / "data") == []
    assert coordinator.requests == []
