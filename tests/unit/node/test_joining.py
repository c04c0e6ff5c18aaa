import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

import grpc
import pytest

from covey.errors import IdentityError
from covey.node.membership.joining import CLAIM_FILE, TOKEN_FILE, NoToken, join_when_new
from covey.wire.identities.identity import Identity
from tests.unit.node.test_node_enrolment import Listener


@pytest.fixture
def coordinator(tmp_path):
    made = Listener(tmp_path)
    yield made
    made.server.stop(None).wait()


@pytest.fixture
def tokens(coordinator, tmp_path):
    """A folder with the tokens node-1 and node-2."""
    folder = tmp_path / "tokens"
    folder.mkdir()
    for name in ("node-1", "node-2"):
        put(coordinator, folder, name)
    return folder


def put(coordinator, folder, name, **changes):
    path = folder / f"{name}.token"
    path.write_text(coordinator.token(name=name, **changes))
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def joined(data_dir):
    """The name, once nothing but the identity is left of joining."""
    assert {TOKEN_FILE, CLAIM_FILE}.isdisjoint(names(data_dir))
    return Identity.load(data_dir / "identity").name


def test_a_token_in_a_file_is_used_and_left_where_it_is(coordinator, tmp_path):
    path = put(coordinator, tmp_path, "hospital-a")
    join_when_new(tmp_path / "data", path)
    assert joined(tmp_path / "data") == "hospital-a"
    assert path.exists()


def test_of_a_folder_one_token_is_taken(coordinator, tokens, tmp_path):
    coordinator.name = "node-1"
    join_when_new(tmp_path / "data", tokens)
    assert joined(tmp_path / "data") == "node-1"
    assert names(tokens) == ["node-2.token"]


def test_where_another_machine_is_faster_the_next_token_is_taken(coordinator, tokens, tmp_path, monkeypatch):
    rename = Path.rename

    def outrun(path, target):
        if path.name == "node-1.token":
            rename(path, path.with_name("node-1.taken-by-another"))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", outrun)
    coordinator.name = "node-2"
    join_when_new(tmp_path / "data", tokens)
    assert joined(tmp_path / "data") == "node-2"
    assert names(tokens) == ["node-1.taken-by-another"]


def test_the_token_is_taken_from_another_file_system(coordinator, tmp_path):
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        assert folder.stat().st_dev != tmp_path.stat().st_dev
        put(coordinator, folder, "hospital-a")
        join_when_new(tmp_path / "data", folder)
        assert joined(tmp_path / "data") == "hospital-a"
        assert names(folder) == []
    finally:
        shutil.rmtree(folder)


def test_with_an_identity_the_tokens_are_left_alone(coordinator, tokens, tmp_path):
    join_when_new(tmp_path / "data", put(coordinator, tmp_path, "hospital-a"))
    (tmp_path / "data" / TOKEN_FILE).write_text("left by a start that was killed when it had joined")
    join_when_new(tmp_path / "data", tokens)
    assert joined(tmp_path / "data") == "hospital-a"
    assert names(tokens) == ["node-1.token", "node-2.token"]
    join_when_new(tmp_path / "data", tmp_path / "nothing-there")


def test_what_an_earlier_start_claimed_is_used_first(coordinator, tokens, tmp_path):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / CLAIM_FILE).write_text("0123")
    (tokens / "node-2.token").rename(tokens / "node-2.taken-0123")
    shutil.copy(tokens / "node-1.token", tokens / "node-3.taken-4567")
    coordinator.name = "node-2"
    join_when_new(data_dir, tokens)
    assert joined(data_dir) == "node-2"
    assert names(tokens) == ["node-1.token", "node-3.taken-4567"]


def test_a_kept_token_needs_no_folder_any_more(coordinator, tokens, tmp_path):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    shutil.move(tokens / "node-1.token", data_dir / TOKEN_FILE)
    coordinator.name = "node-1"
    join_when_new(data_dir, tmp_path / "nothing-there")
    assert joined(data_dir) == "node-1"


def test_a_kept_token_is_secret(coordinator, tokens, tmp_path, monkeypatch):
    monkeypatch.setattr("covey.node.membership.joining._enrol", lambda data_dir, token: None)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    join_when_new(tmp_path / "data", tokens)
    for name in (TOKEN_FILE, CLAIM_FILE):
        assert stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) == 0o600


def test_unusable_tokens_are_passed_over(coordinator, tokens, tmp_path):
    put(coordinator, tokens, "node-1", expires_at=time.time() - 1)
    (tokens / "a.token").write_text("covey1.damaged")
    put(coordinator, tokens, "b", role="admin")
    coordinator.name = "node-2"
    join_when_new(tmp_path / "data", tokens)
    assert joined(tmp_path / "data") == "node-2"
    with pytest.raises(NoToken, match=r"no token for this machine \(3 seen: .*covey coordinator token --to"):
        join_when_new(tmp_path / "other", tokens)


def test_where_there_is_no_token_the_error_says_what_to_do(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoToken, match=r"no token for this machine \(0 seen"):
        join_when_new(tmp_path / "data", tmp_path / "empty")
    with pytest.raises(NoToken, match="is not there; give --join a file"):
        join_when_new(tmp_path / "data", tmp_path / "nothing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(IdentityError, match="should begin with covey1"):
        join_when_new(tmp_path / "data", tmp_path / "text")
    assert names(tmp_path / "data") == [CLAIM_FILE]


def test_a_folder_that_cannot_be_written_is_named(tokens, tmp_path, monkeypatch):
    def refuse(path, target):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(NoToken, match=r"Permission denied .*write to a folder of tokens"):
        join_when_new(tmp_path / "data", tokens)


def test_a_coordinator_that_is_away_is_waited_for(coordinator, tokens, tmp_path, capsys):
    coordinator.next_abort, coordinator.name = (grpc.StatusCode.UNAVAILABLE, ""), "node-1"
    join_when_new(tmp_path / "data", tokens)
    assert joined(tmp_path / "data") == "node-1"
    assert len(coordinator.requests) == 2
    assert "cannot enrol yet" in capsys.readouterr().out


def test_a_database_that_is_away_is_waited_for(coordinator, tokens, tmp_path):
    coordinator.next_abort, coordinator.name = (grpc.StatusCode.UNAVAILABLE, "store-unavailable"), "node-1"
    join_when_new(tmp_path / "data", tokens)
    assert joined(tmp_path / "data") == "node-1"


@pytest.mark.parametrize("code", ["identity", "conflict"])
def test_a_token_that_is_refused_for_good_is_dropped_and_the_next_start_takes_another(
    coordinator, tokens, tmp_path, code
):
    coordinator.next_abort = (grpc.StatusCode.PERMISSION_DENIED, code)
    with pytest.raises(IdentityError, match=r"not now \(this machine's join token was refused; put another one"):
        join_when_new(tmp_path / "data", tokens)
    assert TOKEN_FILE not in names(tmp_path / "data")
    coordinator.name = "node-2"
    join_when_new(tmp_path / "data", tokens)
    assert joined(tmp_path / "data") == "node-2"
    assert names(tokens) == []


def foreign(tmp_path):
    """A coordinator of another federation."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    return Listener(folder)


def test_tokens_of_another_authority_are_passed_over(coordinator, tokens, tmp_path):
    other = foreign(tmp_path)
    put(other, tokens, "a")
    (tmp_path / "authority.crt").write_bytes(coordinator.authority.pem)
    coordinator.name = "node-1"
    join_when_new(tmp_path / "data", tokens, tmp_path / "authority.crt")
    assert joined(tmp_path / "data") == "node-1"
    assert names(tokens) == ["a.token", "node-2.token"]
    with pytest.raises(NoToken, match="of another authority"):
        join_when_new(tmp_path / "data-2", tokens / "a.token", tmp_path / "authority.crt")
    assert other.requests == []
    other.server.stop(None).wait()


def test_what_is_not_an_authoritys_certificate_is_named(tokens, tmp_path):
    (tmp_path / "authority.crt").write_text("hello")
    with pytest.raises(NoToken, match=r"authority\.crt is not an authority's certificate"):
        join_when_new(tmp_path / "data", tokens, tmp_path / "authority.crt")


def test_what_is_no_file_is_passed_over(coordinator, tokens, tmp_path):
    os.mkfifo(tokens / "0.token")
    (tokens / "1.token").mkdir()
    (tokens / "2.token").symlink_to("/dev/zero")
    coordinator.name = "node-1"
    join_when_new(tmp_path / "data", tokens)
    assert joined(tmp_path / "data") == "node-1"


def test_keys_that_cannot_be_used_cost_no_token(coordinator, tokens, tmp_path):
    identity = tmp_path / "data" / "identity"
    identity.mkdir(parents=True)
    (identity / "tls.key").write_text("damaged")
    with pytest.raises(IdentityError, match=r"tls\.key cannot be read as a private key"):
        join_when_new(tmp_path / "data", tokens)
    assert names(tokens) == ["node-1.token", "node-2.token"]
    assert coordinator.requests == []


def test_a_data_directory_that_cannot_be_written_is_named(tokens, tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(NoToken, match=r"must be able to write to .*data"):
        join_when_new(tmp_path / "data", tokens)
    assert names(tokens) == ["node-1.token", "node-2.token"]


def test_an_expired_token_in_a_file_is_refused(coordinator, tmp_path):
    path = put(coordinator, tmp_path, "hospital-a", expires_at=time.time() - 1)
    with pytest.raises(IdentityError, match="has expired"):
        join_when_new(tmp_path / "data", path)
    assert not os.path.exists(tmp_path / "data" / TOKEN_FILE)
    assert coordinator.requests == []
