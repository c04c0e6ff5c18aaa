"""One testbed for all drills: the image is built, and everything comes up from nothing, once."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.testbed.containers import IMAGE, ROOT, Testbed, engine_missing
from tests.testbed.runs import spec

BUILD_S = 900.0


def pytest_collection_modifyitems(items):
    """Drills need an engine; where there is none they say so. Only those in this folder."""
    ours = [item for item in items if "tests/testbed/" in str(item.path)]
    missing = engine_missing() if ours else ""
    for item in ours:
        item.add_marker(pytest.mark.timeout(BUILD_S))
        if missing:
            item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="session")
def image():
    """The image of this working tree."""
    env = {**os.environ, "COVEY_IMAGE": IMAGE}
    command = ["docker", "compose", "-f", "docker/compose.yml", "build", "--quiet", "coordinator"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_S, env=env)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return IMAGE


@pytest.fixture(scope="session")
def testbed(image, tmp_path_factory):
    """The federation, up from nothing."""
    made = Testbed(tmp_path_factory.mktemp("testbed"))
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture(scope="session")
def prometheus(testbed):
    """Prometheus beside the federation, from the beginning, so that it sees all drills."""
    testbed.compose("up", "--detach", "prometheus", profile="dashboards")
    return f"http://127.0.0.1:{testbed.prometheus_port}"


@pytest.fixture(scope="session")
def undisturbed(testbed, prometheus):
    """A run that nothing happens to."""
    return testbed.wait(testbed.admin.submit(spec("undisturbed")))
