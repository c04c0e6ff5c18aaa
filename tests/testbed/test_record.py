"""The last: containers are deleted, the record is not."""

from __future__ import annotations

from tests.testbed.containers import data_volume, docker


def test_the_record_outlives_the_containers(testbed, undisturbed):
    testbed.close_admin()
    left = [data_volume(container) for container in testbed.containers("node")]
    testbed.compose("down", "--timeout", "10", overlays=("compose.attack.yml",), profile="dashboards")
    testbed.compose("up", "--detach", "--wait", "coordinator")
    runs = {run["run"]: run for run in testbed.admin.runs()}
    assert runs[undisturbed["run"]]["model_sha256"] == undisturbed["model_sha256"]
    said = testbed.compose("exec", "-T", "coordinator", "covey", "store", "check", "--data-dir", "/var/lib/covey")
    assert "consistent" in said
    docker("volume", "rm", *left)
