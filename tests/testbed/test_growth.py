"""More nodes, an adversary, and what the dashboard shows of it all; after the drills, for they count four nodes."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request

from tests.testbed.containers import DOCKER, NODES
from tests.testbed.runs import spec

MORE = 2 * NODES


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
    assert updates[name]["verdict"] == "rejected", updates[name]["reason"]
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
