"""Gossip nodes whose disks are full or fail, that may open no file, whose clocks are set: no model changes by a bit."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import psutil
import pytest

from covey.client.gossip_nodes import read_node
from covey.gossip.ledger import Incarnation
from covey.testing.gossip import GossipNodes, simulated
from covey.testing.launch.forks import run_covey
from covey.testing.launch.processes import standing_still, wait_until
from tests.faults.disks import breakable_disk, disk
from tests.faults.moved_clocks import COMPILER, Clock, compiled

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
STEPS = 8
SPEC = f"""
name = "gossip"
mode = "gossip"
[task]
name = "synthetic"
options = {{ parameters = 400_000, train_seconds = 0.5 }}
[gossip]
steps = {STEPS}
min_nodes = 2
"""
"""Models of two chunks."""
IN_THE_WAY = "this machine is in the way; trying again"
REFUSED = "code=obstructed"
"""It can take nothing either."""
PATIENCE_S = 100.0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The models of the same run in one process."""
    outcome = simulated(tmp_path_factory.mktemp("undisturbed"), SPEC.replace("0.5", "0.0"), 2)
    return [peer["model_sha256"] for peer in outcome["peers"]]


def check(nodes: GossipNodes, undisturbed: list[str]) -> None:
    """They come to the end, and nothing was lost or made."""
    nodes.wait(PATIENCE_S)
    assert nodes.models() == undisturbed
    mass = nodes.audit()
    assert (mass["exact"], mass["findings"], mass["in_flight"], mass["lost"]) == (True, [], 0, 0)


def store_of(folder: Path) -> str:
    done = run_covey(["health", "--data-dir", folder, "--service", "store", "--json"], env={})
    return str(json.loads(done.stdout)["status"]) if done.stdout else ""


def test_a_full_disk_is_waited_for(tmp_path: Path, undisturbed: list[str]) -> None:
    with disk(tmp_path / "n1", 64) as full, GossipNodes(tmp_path, SPEC, 2) as nodes:
        nodes.start_all()
        nodes.until_step(1, 1, PATIENCE_S)
        log = tmp_path / "n1.log"

        def is_in_the_way() -> bool:
            full.fill()  # what it gives back of its own files has to be taken again, or it goes on with that
            return IN_THE_WAY in log.read_text()

        assert wait_until(is_in_the_way, PATIENCE_S)
        assert str(full.folder) in log.read_text().partition(IN_THE_WAY)[2]
        assert store_of(nodes.folder(1)) == "NOT_SERVING"
        full.empty()
        check(nodes, undisturbed)


def test_with_a_disk_that_failed_and_is_mended_a_node_goes_on(tmp_path: Path, undisturbed: list[str]) -> None:
    """What it acknowledged was synced; else its record might be an older one, as after a power cut."""
    synced = ["--durability", "power"]
    with breakable_disk(tmp_path / "n1") as broken, GossipNodes(tmp_path, SPEC, 2) as nodes:
        nodes.start_all(options=synced)
        nodes.until_step(1, 2, PATIENCE_S)
        broken.fail()
        log = tmp_path / "n1.log"
        told = (IN_THE_WAY, REFUSED)
        assert wait_until(
            lambda: any(word in log.read_text() for word in told) or not nodes.daemon(1).alive, PATIENCE_S
        )
        nodes.kill(1)
        broken.mend()
        nodes.start(1, options=synced)
        check(nodes, undisturbed)


def test_a_joiner_whose_disk_is_full_waits_with_a_peer_s_model_until_there_is_room(tmp_path: Path) -> None:
    spec = SPEC.replace("min_nodes = 2", 'min_nodes = 2\njoin = "mint"')
    with disk(tmp_path / "n1", 64) as full, GossipNodes(tmp_path, spec, 2) as nodes:
        nodes.start_all()
        nodes.until_step(1, 1, PATIENCE_S)
        nodes.kill(1)
        with standing_still(nodes.workers([0])):  # the run is not over when the other one is back
            nodes.cli("ca", "evict", "n1", "--run", "gossip", "--peers", nodes.peers, "--dir", tmp_path / "ca")
            assert nodes.start(1).wait(PATIENCE_S) == 1  # it hears that it is out
            nodes.daemon(0).suspend()
            joiner = nodes.start(1, options=["--rejoin"])
            assert wait_until(lambda: "ready for peers" in joiner.printed, PATIENCE_S)
            full.fill(left_bytes=200_000)
            nodes.daemon(0).resume()
            assert wait_until(lambda: IN_THE_WAY in joiner.printed, PATIENCE_S)
            assert "joining with a peer's model" not in joiner.printed
            full.empty()
            assert wait_until(lambda: "joining with a peer's model" in joiner.printed, PATIENCE_S)
        nodes.wait(PATIENCE_S)
        assert read_node(nodes.folder(1)).facts.me == Incarnation("n1", 2)
        mass = nodes.audit()
        assert (mass["exact"], mass["findings"], mass["in_flight"], mass["minted"]) == (True, [], 0, 3 << 52)


def test_too_many_open_files_are_waited_for(tmp_path: Path, undisturbed: list[str]) -> None:
    with GossipNodes(tmp_path, SPEC, 2) as nodes:
        nodes.start_all()
        nodes.until_step(1, 1, PATIENCE_S)
        daemon = psutil.Process(nodes.daemon(1).pid)
        before = daemon.rlimit(resource.RLIMIT_NOFILE)
        daemon.rlimit(resource.RLIMIT_NOFILE, (0, before[1]))
        log = tmp_path / "n1.log"
        assert wait_until(lambda: "too many files are open; raise LimitNOFILE" in log.read_text(), PATIENCE_S)
        daemon.rlimit(resource.RLIMIT_NOFILE, before)
        check(nodes, undisturbed)


@pytest.mark.skipif(not COMPILER, reason="no C compiler for the library that moves a daemon's clock")
def test_a_clock_that_is_set_changes_nothing(tmp_path: Path, undisturbed: list[str]) -> None:
    clock = Clock(tmp_path / "clock", compiled(tmp_path))
    with GossipNodes(tmp_path / "nodes", SPEC, 2, fork=False) as nodes:
        nodes.start(0)
        nodes.start(1, env=clock.env)
        for step, seconds in ((1, 6 * 3600), (3, -3 * 3600)):
            nodes.until_step(1, step, PATIENCE_S)
            clock.set(seconds)
        check(nodes, undisturbed)
        assert nodes.daemon(1).printed.count("clock was set") >= 1
