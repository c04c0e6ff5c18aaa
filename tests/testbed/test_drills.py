"""Drills on the compose testbed: what is killed, cut off or exchanged in a round does not change the model."""

from __future__ import annotations

import json
import time

import pytest

from covey import __version__
from covey.storage.sql.migrations.migrate import HEAD
from covey.testing.launch.processes import wait_until
from tests.testbed.containers import NODES, ROOT, docker
from tests.testbed.runs import STRUCK, Struck, spec

# -- kill -9 in the middle of a round ---------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["coordinator", "postgres", "node"])
def test_a_killed_service_changes_nothing(testbed, undisturbed, service):
    container = testbed.containers(service)[0]
    struck = Struck(testbed, f"killed-{service}", lambda: testbed.kill(container))
    docker("start", container)
    struck.completes(undisturbed)
    testbed.wait_connected(NODES)


def test_the_database_may_be_away_for_a_while(testbed, undisturbed):
    container = testbed.containers("postgres")[0]
    struck = Struck(testbed, "away-postgres", lambda: testbed.kill(container))
    away = ["covey", "health", "--data-dir", "/var/lib/covey", "--service", "store"]
    coordinator = testbed.containers("coordinator")[0]
    assert wait_until(lambda: "NOT_SERVING" in docker("exec", coordinator, *away, check=False), 30, poll_s=0.5)
    docker("start", container)
    struck.completes(undisturbed)


# -- the network ------------------------------------------------------------------------------------------------------

DEADLINE_S = 4


def test_a_node_that_is_cut_off_for_a_moment_changes_nothing(testbed, undisturbed):
    container, network = testbed.containers("node")[0], f"{testbed.project}_federation"
    struck = Struck(testbed, "cut-short", lambda: docker("network", "disconnect", network, container))
    docker("network", "connect", network, container)
    struck.completes(undisturbed)


def test_a_node_that_is_cut_off_for_longer_than_the_deadline_comes_back(testbed, undisturbed):
    container = testbed.containers("node")[0]
    node, network = testbed.name_of(container), f"{testbed.project}_federation"
    policy = f"quorum = 0.5\ndeadline_s = {DEADLINE_S}\nrejoin_s = 2"
    run = testbed.admin.submit(spec("cut", rounds=400, nodes=NODES - 1, extra=policy))
    testbed.wait_round(run, STRUCK)
    docker("network", "disconnect", network, container)
    cut_at = time.time()
    testbed.until(lambda: any(_missed(r, cut_at) for r in testbed.admin.rounds(run)), 60, "a round without the node")
    time.sleep(max(0.0, cut_at + 2 * DEADLINE_S - time.time()))
    docker("network", "connect", network, container)
    back_at = time.time()
    testbed.until(lambda: any(_complete(r, back_at) for r in testbed.admin.rounds(run)), 120, "a round with it again")
    rounds = testbed.admin.rounds(run)
    missed = next(r["round"] for r in rounds if _missed(r, cut_at))
    verdicts = {u["node"]: u["verdict"] for u in testbed.admin.round(run, missed)["updates"]}
    assert verdicts[node] in ("lost", "late", "declined")
    assert sum(verdict == "accepted" for verdict in verdicts.values()) == NODES - 1
    assert testbed.admin.stop_run(run)["state"] == "stopped"
    testbed.wait_connected(NODES)


def _missed(found, since):
    return found["state"] == "committed" and found["committed_at"] > since and found["accepted"] == NODES - 1


def _complete(found, since):
    return found["state"] == "committed" and found["started_at"] > since and found["accepted"] == NODES


def test_a_stranger_on_the_network_gets_nowhere(testbed, undisturbed):
    node = testbed.containers("node")[0]
    postgres = json.loads(docker("inspect", testbed.containers("postgres")[0]))[0]
    inside = [n["IPAddress"] for n in postgres["NetworkSettings"]["Networks"].values()]
    hosts = ["coordinator", _address(node, f"{testbed.project}_federation")]
    script = (ROOT / "tests" / "testbed" / "stranger.py").read_text()
    authority = (testbed.identity / "authority.crt").read_text()
    found = json.loads(
        docker(
            "run",
            "--rm",
            "--interactive",
            "--network",
            f"{testbed.project}_federation",
            "--entrypoint",
            "python",
            testbed.image,
            "-c",
            script,
            ",".join(hosts),
            ",".join(f"{a}:5432" for a in [*inside, "postgres"]),
            stdin=authority,
            timeout_s=300,
        )
    )
    assert found["open"] == {hosts[0]: [7400, 7401], hosts[1]: []}
    assert _listens(testbed.containers("coordinator")[0]) == {7400, 7401, 9464}
    assert _listens(node) == set()  # for its peers it listens while a gossip run is on
    assert found["reached"] == []
    assert found["attempts"] == {
        "admin without certificate": "UNAVAILABLE",
        "admin of another authority": "UNAVAILABLE",
        "admin without TLS": "UNAVAILABLE",
        "session without certificate": "UNAVAILABLE",
        "admin on the enrolment port": "UNIMPLEMENTED",
        "enrolment with a guess": "PERMISSION_DENIED",
    }


def test_a_node_is_no_admin(testbed, undisturbed):
    asked = ["covey", "node", "list", "--server", "coordinator:7400", "--identity", "/var/lib/covey/identity"]
    said = docker("exec", testbed.containers("node")[0], *asked, check=False)
    assert "may not do this" in said


def _listens(container):
    """Every TCP port on which a container's processes listen, but those on loopback."""
    tables = docker("exec", container, "cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines()
    rows = [line.split() for line in tables if ":" in line]
    listening = [row[1].split(":") for row in rows if row[3] == "0A"]
    return {int(port, 16) for address, port in listening if not _is_loopback(address)}


def _is_loopback(address):
    return address == "00000000000000000000000001000000" or (len(address) == 8 and address.endswith("7F"))


def _address(container, network):
    networks = json.loads(docker("inspect", container))[0]["NetworkSettings"]["Networks"]
    return networks[network]["IPAddress"]


def test_only_loopback_is_published(testbed):
    for service in ("coordinator", "postgres", "node", "prometheus"):
        container = testbed.containers(service)[0]
        ports = json.loads(docker("inspect", container))[0]["NetworkSettings"]["Ports"]
        published = [binding for bindings in ports.values() if bindings for binding in bindings]
        assert {b["HostIp"] for b in published} <= {"127.0.0.1"}
        assert len(published) == (1 if service in ("coordinator", "prometheus") else 0)


# -- upgrade ----------------------------------------------------------------------------------------------------------

NEXT, NEXT_VERSION = "next", "9.9.9"
MIGRATION = f'''"""A table of the next release."""

import sqlalchemy as sa
from alembic import op

revision = "{NEXT}"
down_revision = "{HEAD}"


def upgrade():
    op.create_table("next_release", sa.Column("id", sa.Integer, primary_key=True))
'''


@pytest.fixture(scope="session")
def next_image(testbed, tmp_path_factory):
    """The next release: another version number, and one more migration."""
    changed = {
        "covey/storage/sql/migrations/versions/next_release.py": MIGRATION,
        "covey/storage/sql/migrations/migrate.py": (ROOT / "storage" / "sql" / "migrations" / "migrate.py")
        .read_text()
        .replace(f'HEAD = "{HEAD}"', f'HEAD = "{NEXT}"'),
        "covey/__init__.py": (ROOT / "covey" / "__init__.py").read_text().replace(__version__, NEXT_VERSION),
    }
    container, folder = docker("create", testbed.image).strip(), tmp_path_factory.mktemp("next")
    for path, text in changed.items():
        (folder / "file").write_text(text)
        docker("cp", folder / "file", f"{container}:/opt/covey/{path}")
    image = f"{testbed.image}-next"
    docker("commit", container, image)
    docker("rm", container)
    yield image
    docker("rmi", "--force", image, check=False)


def test_an_upgrade_migrates_and_the_run_goes_on(testbed, undisturbed, next_image):
    upgrade = ("up", "--detach", "--no-deps", "coordinator")
    struck = Struck(testbed, "upgraded", lambda: testbed.compose(*upgrade, image=next_image))
    struck.completes(undisturbed)
    assert testbed.admin.status()["version"] == NEXT_VERSION
    tables = testbed.compose(
        "exec", "-T", "postgres", "psql", "-U", "covey", "-tAc", "SELECT count(*) FROM next_release"
    )
    assert tables.strip() == "0"
    # An older release does not touch what it does not know; it says what to do.
    said = testbed.compose("run", "--rm", "--no-deps", "coordinator", "store", "check", check=False)
    assert "start the newer Covey" in said
    # The nodes follow, with their own keys.
    before = testbed.connected()
    testbed.image = next_image
    testbed.compose("up", "--detach", "--no-deps", "--wait", "node")
    testbed.until(lambda: {n["version"] for n in testbed.admin.nodes()} == {NEXT_VERSION}, 60, "upgraded nodes")
    assert testbed.connected() == before
    again = testbed.wait(testbed.admin.submit(spec("after-upgrade")))
    assert again["model_sha256"] == undisturbed["model_sha256"]
