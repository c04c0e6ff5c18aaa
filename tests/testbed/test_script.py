"""docker/testbed itself, as a newcomer calls it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid

import pytest

from tests.testbed.containers import DOCKER, IMAGE, docker, free_port

PROJECT = f"covey-test-{uuid.uuid4().hex[:8]}"
ADDED = {"COVEY_IMAGE": IMAGE, "COMPOSE_PROJECT_NAME": PROJECT, "COVEY_NODES": "2", "COVEY_PORT": str(free_port())}


def script(*arguments, check=True, **env):
    """What docker/testbed prints."""
    done = subprocess.run(
        [DOCKER / "testbed", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **ADDED, **env},
    )
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def volumes():
    return set(docker("volume", "ls", "--quiet").split())


@pytest.fixture
def clean(image):
    before = volumes()
    yield before
    script("down", check=False)


def test_up_trains_and_down_leaves_nothing_behind(clean, tmp_path):
    said = script("up")
    assert said.count(" committed in ") == 20
    assert "completed" in said
    assert (DOCKER / f".identity-{PROJECT}").is_dir()
    # Containers that are made anew take their volumes along by name.
    compose = ["compose", "-p", PROJECT, "-f", str(DOCKER / "compose.yml")]
    subprocess.run(
        ["docker", *compose, "up", "--detach", "--no-deps", "--force-recreate", "--scale", "node=2", "node"],
        check=True,
        capture_output=True,
        timeout=120,
        env={**os.environ, **ADDED},
    )
    assert json.loads(script("covey", "run", "list", "--json"))[0]["state"] == "completed"
    spec = tmp_path / "mine.toml"
    spec.write_text(
        (DOCKER / "runs" / "digits.toml").read_text().replace("count = 20", "count = 2").replace("= 4", "= 2")
    )
    assert script("run", spec).count(" committed in ") == 2
    refused = script("up", check=False, COVEY_PORT="1", PATH=f"{elsewhere(tmp_path)}:{os.environ['PATH']}")
    assert "has a testbed of this name" in refused
    script("down")
    assert volumes() == clean
    assert not docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}").strip()
    assert not (DOCKER / f".identity-{PROJECT}").exists()


def elsewhere(folder):
    """A `docker` that says that the project's containers belong to another checkout."""
    path = folder / "docker"
    real = shutil.which("docker")
    path.write_text(f'#!/bin/sh\n[ "$1" = ps ] && echo /another/checkout && exit\nexec {real} "$@"\n')
    path.chmod(0o755)
    return folder


def test_gpus_are_reserved_for_nodes():
    files = [argument for name in ("compose.yml", "compose.gpu.yml") for argument in ("-f", str(DOCKER / name))]
    command = ["docker", "compose", *files, "config"]
    found = json.loads(subprocess.run([*command, "--format", "json"], check=True, capture_output=True).stdout)
    node = found["services"]["node"]
    assert node["deploy"]["resources"]["reservations"]["devices"] == [
        {"capabilities": ["gpu"], "driver": "nvidia", "count": 1}
    ]
    assert "--device=cuda" in node["command"]
    assert found["services"]["coordinator"]["build"]["args"]["TORCH_BUILD"] == "cuda"
