"""`covey ca` from the command line: identities that count, requests, renewal, evictions."""

import json

import pytest
from click.testing import CliRunner

from covey.cli.main import covey
from covey.wire.channels import key_sha256
from covey.wire.identities.identity import Identity, tls_key_in


@pytest.fixture
def ca(tmp_path):
    def invoke(*arguments, fails=""):
        done = CliRunner().invoke(covey, ["ca", *map(str, arguments)])
        assert (done.exit_code == 0) == (not fails), done.output
        assert fails in done.output
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    invoke("init", "--dir", tmp_path / "ca")
    return invoke


def test_init_keeps_the_authority_that_is_there(ca, tmp_path):
    made = ca("init", "--dir", tmp_path / "ca", "--json")
    assert not made["created"]
    again = ca("init", "--dir", tmp_path / "other", "--json")
    assert again["created"]
    assert again["federation"] != made["federation"]


def test_issue_makes_a_whole_identity_and_its_lines_of_the_peers_file(ca, tmp_path):
    folder = tmp_path / "ada"
    shown = ca("issue", "ada", "--dir", tmp_path / "ca", "--to", folder)
    identity = Identity.load(folder)
    assert (identity.name, identity.role, identity.explain()) == ("ada", "node", "")
    assert key_sha256(tls_key_in(folder / "tls.key").public_key()) in shown
    assert 'name = "ada"' in shown


def test_issue_again_renews_for_the_same_keys(ca, tmp_path):
    folder = tmp_path / "ada"
    first = ca("issue", "ada", "--dir", tmp_path / "ca", "--to", folder, "--days", "10", "--json")
    second = ca("issue", "ada", "--dir", tmp_path / "ca", "--to", folder, "--json")
    assert second["fingerprint"] == first["fingerprint"]
    assert second["expires_at"] > first["expires_at"]
    ca("issue", "bob", "--dir", tmp_path / "ca", "--to", folder, fails="identity of node 'ada' already")


def test_a_request_leaves_the_keys_where_they_are(ca, tmp_path):
    home, away = tmp_path / "home", tmp_path / "away"
    asked = ca("request", "ada", "--to", home, "--json")
    issue = ("issue", "ada", "--dir", tmp_path / "ca", "--request", asked["request"], "--to", away, "--json")
    made = ca(*issue, "--days", "10")
    assert made["fingerprint"] == asked["fingerprint"]
    assert not (away / "tls.key").exists()
    renewed = ca(*issue)
    assert (renewed["fingerprint"], renewed["expires_at"] > made["expires_at"]) == (asked["fingerprint"], True)
    ca("issue", "ada", "--dir", tmp_path / "ca", "--to", away, fails="its keys are elsewhere")
    ca("issue", "ada", "--dir", tmp_path / "ca", "--to", tmp_path / "cyd")
    wrong = ("--request", asked["request"], "--to", tmp_path / "cyd")
    ca("issue", "ada", "--dir", tmp_path / "ca", *wrong, fails="for another key than")
    for path in away.iterdir():
        path.rename(home / path.name)
    assert Identity.load(home).explain() == ""
    ca("issue", "bob", "--dir", tmp_path / "ca", "--request", asked["request"], "--to", away, fails="not a request of")


def test_without_an_authority_nothing_is_issued(ca, tmp_path):
    (tmp_path / "empty").mkdir()
    ca("issue", "ada", "--dir", tmp_path / "empty", "--to", tmp_path / "ada", fails="covey ca init --dir")


def test_who_signs_an_eviction_must_be_said_and_be_an_admin(ca, tmp_path):
    peers = tmp_path / "peers.toml"
    peers.write_text('[[peers]]\nname = "ada"\n')
    ca("issue", "bob", "--dir", tmp_path / "ca", "--to", tmp_path / "bob")
    evict = ("evict", "ada", "--run", "digits", "--peers", peers)
    ca(*evict, fails="one of the two")
    whole = "covey ca evict ada --run RUN --peers peers.toml --dir DIR"
    ca("evict", "ada", fails=f"say of which run, and whom to tell: {whole}")
    ca("evict", "ada", "--run", "digits", "--for-good", fails=f"{whole} --for-good")
    ca(*evict, "--identity", tmp_path / "bob", fails="'bob' is a node")
    ca("evict", "eve", "--run", "digits", "--peers", peers, "--dir", tmp_path / "ca", fails="names no 'eve'")
    ca(*evict, "--dir", tmp_path / "ca", fails="Nodes that are through with the run answer no more")
