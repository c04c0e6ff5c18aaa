"""A node without a coordinator, as its operator sees it: health, metrics, and a certificate that is issued again."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from covey.cli.commands.gossip.status import status_of
from covey.client import authority
from covey.client.gossip_nodes import read_node
from covey.testing.chaos.gossip.arena import allow_paced
from covey.testing.chaos.gossip.paced import PACED
from covey.testing.gossip import GossipNodes
from covey.testing.launch.forks import run_covey
from covey.testing.launch.processes import wait_until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
SPEC = """
name = "gossip"
mode = "gossip"
[task]
name = "digits"
[training]
local_steps = 1
[gossip]
steps = 3
min_nodes = 2
"""
OPTIONS = ["--stay", "--metrics", "127.0.0.1:0"]


def health(folder: Path, service: str = "") -> tuple[str, str]:
    done = run_covey(["health", "--data-dir", folder, "--service", service, "--json"], env={})
    said = json.loads(done.stdout) if done.stdout else {"status": "", "reason": done.stderr}
    return said["status"], said["reason"]


def status(nodes: GossipNodes) -> dict[str, Any]:
    """What `covey gossip status` says of the first node, in this process."""
    return status_of(read_node(nodes.folder(0)))


def scraped(log: Path) -> dict[str, float]:
    """The figures without labels, from where the node's log says."""
    [url] = re.findall(r"url=(\S+/metrics)", log.read_text())
    with urllib.request.urlopen(url, timeout=60) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}


def test_its_health_its_metrics_and_a_new_certificate_without_a_restart(tmp_path: Path) -> None:
    with GossipNodes(tmp_path, SPEC, 2) as nodes:
        folder, log = nodes.folder(0), tmp_path / "n0.log"
        short = authority.issue(tmp_path / "ca", "n0", folder / "identity", days=20)
        nodes.start(0, options=OPTIONS)
        assert wait_until(lambda: health(folder) == ("SERVING", ""), 100)
        assert health(folder, "peers") == ("NOT_SERVING", "the node's peers is NOT_SERVING")
        assert "no service 'session'" in health(folder, "session")[1]
        assert wait_until(lambda: "the certificate ends soon" in log.read_text(), 60)
        assert scraped(log)["covey_certificate_expiry_timestamp_seconds"] == short.expires_at
        assert wait_until(lambda: status(nodes)["waits_for"] == "waiting for nodes: 1 of 2 are there", 60)
        why = "n1 shows no sign of life, and cannot be called: "  # once it was tried
        assert wait_until(lambda: why in str(status(nodes)["waits_why"]), 60)
        nodes.start(1, options=OPTIONS)
        assert wait_until(lambda: health(folder, "peers") == ("SERVING", ""), 100)
        long = authority.issue(tmp_path / "ca", "n0", folder / "identity")
        assert wait_until(lambda: "going on with a new certificate" in log.read_text(), 60)
        assert scraped(log)["covey_certificate_expiry_timestamp_seconds"] == long.expires_at
        assert health(folder) == ("SERVING", "")  # asked, and answered, with the new one
        assert wait_until(lambda: scraped(log).get("covey_gossip_step") == 3.0, 100)
        assert wait_until(lambda: scraped(log)["covey_gossip_batches_in_flight"] == 0.0, 60)
        figures = scraped(log)
        assert (figures["covey_gossip_mass"], figures["covey_gossip_connections"]) == (1.0, 1.0)
        assert figures["covey_gossip_sent_batches_total"] == figures["covey_gossip_received_batches_total"] == 3.0
        assert wait_until(lambda: status(nodes)["peers"] == {"finished": 1}, 60)
        nodes.kill(1)
        assert "start it again: covey gossip start" in health(nodes.folder(1))[1]
        assert wait_until(lambda: scraped(log)["covey_gossip_connections"] == 0.0, 60)
        assert wait_until(lambda: status(nodes)["peers"] == {"away": 1}, 100)
        shown = nodes.cli("gossip", "status", "--data-dir", folder)
        assert "1 suspected" in shown
        assert "n1 shows no sign of life" in shown
        assert all(len(line) <= 80 or "sha256" in line or "n1" in line for line in shown.splitlines()), shown
        lines = nodes.cli("gossip", "status", "--data-dir", folder, "--data-dir", nodes.folder(1))
        rows = [line.split()[:3] for line in lines.splitlines() if line[:1] == "n"]
        assert rows[:2] == [["n0", "completed", "3/3"], ["n1", "completed", "3/3"]]
        assert max(map(len, lines.splitlines()[:4])) <= 80
        nodes.start(1, options=["--stay"])  # a new connection, which is made with the new certificate
        assert wait_until(lambda: scraped(log)["covey_gossip_connections"] == 1.0, 60)
        nodes.daemon(0).terminate()
        assert nodes.daemon(0).wait(60) == 0
        assert not (folder / "node.json").exists()
        assert wait_until(lambda: not status(nodes)["running"], 60)
        watched = nodes.cli("gossip", "status", "--data-dir", folder, "--watch", "--json")
        [last] = [json.loads(line) for line in watched.splitlines()]
        assert (last["ended"], last["steps"], last["waits_for"]) == ("completed", 3, "")


PACED_SPEC = f"""
name = "quota"
mode = "gossip"
[task]
name = "{PACED}"
options = {{ seconds = 0.1 }}
[training]
local_steps = 1
[gossip]
steps = 6
min_nodes = 2
protocol = "agp"
rate_correction = "none"
topology = {{ name = "complete" }}
"""


def test_a_fast_peer_keeps_what_has_no_room_at_a_slow_one(tmp_path: Path) -> None:
    model_gib = 19_000 / 2**30  # a little less than a model of digits
    with GossipNodes(tmp_path, PACED_SPEC, 2) as nodes:
        allow_paced(nodes)
        settings = nodes.folder(0) / "node.toml"
        rest = f"[data.options]\nslower = 30\n{settings.read_text()}[peers]\nquota_gib = "
        settings.write_text(f"{rest}{0.5 * model_gib}\n")
        assert nodes.start(0).wait(100) == 1
        assert "a step of this run waits for" in (tmp_path / "n0.log").read_text()
        settings.write_text(f"{rest}{1.5 * model_gib}\n")  # one model of the peer's, not two
        nodes.start_all()
        nodes.wait()
        assert "a peer's body is refused for now" in (tmp_path / "n0.log").read_text()
        audit = nodes.audit()
    assert (audit["exact"], audit["in_flight"], audit["live"]) == (True, 0, 2 * 2**52)
