import fcntl
import time
from types import SimpleNamespace

import pytest

from covey.client.token_folder import LOCK_FILE, fill
from covey.client.values import Node, Token
from covey.errors import Conflict, CoveyError, IdentityError, NotFound
from covey.wire.identities.authority import Authority
from covey.wire.identities.tokens import JoinToken


class Coordinator:
    """As a connection: makes tokens, unless the name is refused; `look` is called before each."""

    def __init__(self, folder):
        self.identity = SimpleNamespace(authority_pem=Authority.open(folder / "keys").pem)
        self.enrolled, self.refused, self.look = [], {}, lambda: None

    def nodes(self):
        return [Node(name, "away") for name in self.enrolled]

    def token(self, node="", *, role="node", expires_s=3600.0):
        self.look()
        if node in self.refused:
            raise self.refused[node]
        expires_at = time.time() + expires_s
        token = JoinToken(node, role, "c:1", "c:2", self.identity.authority_pem, b"s" * 32, expires_at)
        return Token(token.encode(), node, expires_at)


@pytest.fixture
def coordinator(tmp_path):
    return Coordinator(tmp_path)


@pytest.fixture
def fill_up(coordinator, tmp_path):
    def call(count, prefix="node", expires_s=60.0):
        return fill(tmp_path / "tokens", coordinator, count=count, prefix=prefix, expires_s=expires_s).made

    return call


def test_the_folder_is_locked_while_a_token_is_made(coordinator, fill_up, tmp_path):
    def look():
        with (tmp_path / "tokens" / LOCK_FILE).open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    coordinator.look = look
    assert fill_up(1) == ["node-1"]
    with (tmp_path / "tokens" / LOCK_FILE).open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_was_claimed_and_can_be_used_no_more_goes(coordinator, fill_up, tmp_path):
    fill_up(2, expires_s=-1.0)
    folder = tmp_path / "tokens"
    (folder / "node-1.token").rename(folder / "node-1.taken-abc")
    assert fill_up(1, expires_s=60.0) == ["node-3"]
    (folder / "node-3.token").rename(folder / "node-3.taken-abc")
    assert fill_up(1) == ["node-4"]
    assert sorted(path.name for path in folder.glob("node*")) == ["node-3.taken-abc", "node-4.token"]


def test_numbers_go_on_above_those_of_the_same_prefix(coordinator, fill_up):
    coordinator.enrolled = ["node-7", "node-x", "node-07a", "nodes-30", "my-node-40", "node-"]
    assert fill_up(2) == ["node-8", "node-9"]
    assert fill_up(3, prefix="nodes") == ["nodes-31"]


def test_a_name_that_is_taken_is_passed_over(coordinator, fill_up):
    coordinator.refused["node-1"] = Conflict("taken")
    assert fill_up(1) == ["node-2"]


def test_after_an_error_the_folder_can_be_filled_up(coordinator, fill_up, tmp_path):
    coordinator.refused["node-2"] = NotFound("the coordinator went away")
    with pytest.raises(NotFound):
        fill_up(3)
    assert fill_up(3) == ["node-3", "node-4"]


def test_a_prefix_that_no_name_can_have_is_refused(fill_up, tmp_path):
    with pytest.raises(IdentityError, match="not a valid name"):
        fill_up(1, prefix="Node")
    assert not (tmp_path / "tokens").exists()


def test_a_folder_that_cannot_be_made_is_named(fill_up, tmp_path):
    (tmp_path / "tokens").write_text("a file")
    with pytest.raises(CoveyError, match="tokens cannot be filled with tokens"):
        fill_up(1)


def test_a_token_that_has_expired_is_replaced(coordinator, fill_up, tmp_path):
    fill_up(1, expires_s=-1.0)
    assert fill_up(1) == ["node-2"]
    assert [path.name for path in (tmp_path / "tokens").glob("*.token")] == ["node-2.token"]
