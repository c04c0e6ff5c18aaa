"""Drills on the compose testbed: what is killed, cut off or exchanged in a round does not change the model."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request

import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from covey import __version__
from covey.testing.processes import wait_until
from storage.migrate import HEAD
from tests.testbed.containers import DOCKER, NODES, ROOT, docker

ROUNDS, STRUCK = 6, 3
"""Rounds of a drill's run, and the one in whose middle something happens."""


def spec(name, *, rounds=ROUNDS, nodes=NODES, extra=""):
    """Digits with rounds of a second or two, so that there is a middle."""
    return f"""
name = "{name}"
seed = 11
[task]
name = "digits"
[training]
learning_rate = 0.05
batch_size = 32
local_epochs = 200
[rounds]
count = {rounds}
min_nodes = {nodes}
{extra}
"""


@pytest.fixture(scope="session")
def prometheus(testbed):
    """Prometheus beside the federation, from the beginning, so that it sees all drills."""
    testbed.compose("up", "--detach", "prometheus", profile="dashboards")
    return f"http://127.0.0.1:{testbed.prometheus_port}"


@pytest.fixture(scope="session")
def undisturbed(testbed, prometheus):
    """A run that nothing happens to."""
    return testbed.wait(testbed.admin.submit(spec("undisturbed")))


class Struck:
    """A run of the same specification, and what happens to it in the middle of a round."""

    def __init__(self, testbed, name, blow):
        self.testbed = testbed
        self.run = testbed.admin.submit(spec(name))
        testbed.wait_round(self.run, STRUCK)
        blow()
        self.at = time.time()

    def completes(self, undisturbed):
        """It ends with the same bytes, and what happened did happen in the middle of that round."""
        ended = self.testbed.wait(self.run)
        assert ended["model_sha256"] == undisturbed["model_sha256"]
        rounds = {r["round"]: r for r in self.testbed.admin.rounds(self.run)}
        assert len(rounds) == ROUNDS
        assert rounds[STRUCK]["started_at"] < self.at < rounds[STRUCK]["committed_at"]
        assert all(r["accepted"] == NODES for r in rounds.values())


# -- from nothing -----------------------------------------------------------------------------------------------------


def test_it_comes_up_from_nothing_and_trains(testbed, undisturbed, tmp_path):
    assert undisturbed["rounds_committed"] == ROUNDS
    nodes = json.loads(testbed.covey("node", "list", "--json"))
    assert [n["state"] for n in nodes] == ["connected"] * NODES
    assert {n["accepted"] for n in nodes} == {ROUNDS}
    rounds = json.loads(testbed.covey("round", "list", undisturbed["run"], "--json"))
    assert [r["state"] for r in rounds] == ["committed"] * ROUNDS
    testbed.covey("run", "audit", undisturbed["run"])
    exported = tmp_path / "model.safetensors"
    testbed.covey("run", "export", undisturbed["run"], "--to", exported)
    assert accuracy(exported) > 0.85


def accuracy(path):
    """Of an exported model, on all digits, in plain PyTorch."""
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    model.load_state_dict(load_file(path))
    images, labels = load_digits(return_X_y=True)
    with torch.no_grad():
        answers = model(torch.tensor(images / 16, dtype=torch.float32)).argmax(1)
    return (answers == torch.tensor(labels)).float().mean().item()


def test_a_run_is_submitted_and_watched_from_outside_of_the_containers(testbed, undisturbed, tmp_path):
    path = tmp_path / "outside.toml"
    path.write_text(spec("outside"))
    lines = testbed.covey("run", "submit", path, "--watch", timeout_s=120).splitlines()
    assert sum("committed in" in line for line in lines) == ROUNDS
    run = json.loads(testbed.covey("run", "show", "outside", "--json"))
    assert run["model_sha256"] == undisturbed["model_sha256"]


def test_each_node_enrolled_itself_and_has_its_own_volume(testbed):
    containers = testbed.containers("node")
    assert len({testbed.name_of(c) for c in containers}) == NODES
    volumes = {_data_volume(c) for c in containers}
    assert len(volumes) == NODES
    assert not docker("exec", containers[0], "sh", "-c", "ls /tokens/*taken* 2>/dev/null || true").strip()


def _data_volume(container):
    mounts = json.loads(docker("inspect", container))[0]["Mounts"]
    return next(m["Name"] for m in mounts if m["Destination"] == "/var/lib/covey")


SECRETS = r"find / -xdev \( -name '*.key' -o -name '*.token' -o -name .git \) 2>/dev/null || true"


def test_nothing_runs_as_root_and_no_secret_is_in_the_image(testbed):
    for service in ("coordinator", "node"):
        container = testbed.containers(service)[0]
        assert docker("exec", container, "id", "-u").strip() == "10001"
        settings = json.loads(docker("inspect", container))[0]
        assert settings["HostConfig"]["ReadonlyRootfs"]
        assert not any("PASSWORD" in variable.upper() for variable in settings["Config"]["Env"])
    found = docker("run", "--rm", "--entrypoint", "sh", testbed.image, "-c",
                   SECRETS)  # fmt: skip
    assert not found.strip()


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
    assert verdicts[node] in ("lost", "declined")
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
    assert _listens(node) == set()
    assert found["reached"] == []
    assert found["attempts"] == {
        "admin without certificate": "UNAVAILABLE",
        "admin without TLS": "UNAVAILABLE",
        "session without certificate": "UNAVAILABLE",
        "admin on the enrolment port": "UNIMPLEMENTED",
        "enrolment with a guess": "PERMISSION_DENIED",
    }


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
        "storage/migrations/versions/next_release.py": MIGRATION,
        "storage/migrate.py": (ROOT / "storage" / "migrate.py")
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
    tables = testbed.compose("exec", "-T", "postgres", "psql", "-U", "covey", "-tAc",
                             "SELECT count(*) FROM next_release")  # fmt: skip
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


# -- more nodes, adversaries, dashboards ------------------------------------------------------------------------------


MORE = NODES + 2


def test_it_scales(testbed, undisturbed):
    testbed.compose("up", "--detach", "--wait", "--no-recreate", "--scale", f"node={MORE}")
    testbed.wait_connected(MORE)
    run = testbed.admin.submit(spec("scaled", rounds=2, nodes=MORE))
    testbed.wait(run)
    assert {r["accepted"] for r in testbed.admin.rounds(run)} == {MORE}


def test_an_adversary_is_left_out(testbed, undisturbed):
    overlay = ("compose.attack.yml",)
    testbed.compose("up", "--detach", "--wait", "--no-recreate", "adversary", overlays=overlay)
    testbed.wait_connected(MORE + 1)
    name = testbed.name_of(testbed.containers("adversary")[0])
    run = testbed.admin.submit((DOCKER / "runs" / "attacked.toml").read_text())
    ended = testbed.wait(run)
    assert ended["metrics"]["accuracy"] > 0.85
    updates = {u["node"]: u for u in testbed.admin.round(run, ended["rounds_committed"])["updates"]}
    assert updates[name]["verdict"] == "rejected"
    assert [n["drill"] for n in testbed.admin.nodes() if n["node"] == name] == ["scaled"]
    testbed.compose("rm", "--stop", "--force", "--volumes", "adversary", overlays=overlay)


def panels():
    """(title, query) of everything that the dashboard asks."""
    dashboard = json.loads((DOCKER / "grafana" / "covey.json").read_text())
    return [(p["title"], t["expr"]) for p in dashboard["panels"] for t in p["targets"]]


def asked(prometheus, path, **arguments):
    """What Prometheus answers."""
    with urllib.request.urlopen(f"{prometheus}/api/v1/{path}?{urllib.parse.urlencode(arguments)}", timeout=10) as reply:
        return json.load(reply)["data"]


NOT_HERE = ("covey_run_updates_decided", "covey_files_quota_bytes")
"""No asynchronous run, and no quota."""


def test_every_panel_of_the_dashboard_shows_something(testbed, undisturbed, prometheus):
    target = asked(prometheus, "targets")["activeTargets"][0]
    assert (target["scrapeUrl"], target["health"]) == ("https://coordinator-monitor:9464/metrics", "up")
    now = time.time()
    empty = [
        (title, query)
        for title, query in panels()
        if not asked(
            prometheus, "query_range", query=query.replace("$__rate_interval", "1m"), start=now - 900, end=now, step=15
        )["result"]
    ]
    assert [query for _, query in empty] == list(NOT_HERE)
    rules = asked(prometheus, "rules")["groups"][0]["rules"]
    assert {rule["health"] for rule in rules} == {"ok"}


def test_the_record_outlives_the_containers(testbed, undisturbed):
    testbed.close_admin()
    left = [_data_volume(container) for container in testbed.containers("node")]
    testbed.compose("down", "--timeout", "10", overlays=("compose.attack.yml",), profile="dashboards")
    testbed.compose("up", "--detach", "--wait", "coordinator")
    runs = {run["run"]: run for run in testbed.admin.runs()}
    assert runs[undisturbed["run"]]["model_sha256"] == undisturbed["model_sha256"]
    said = testbed.compose("exec", "-T", "coordinator", "covey", "store", "check", "--data-dir", "/var/lib/covey")
    assert "consistent" in said
    docker("volume", "rm", *left)
