"""The testbed comes up from nothing, trains, and is used from outside; nothing in it has more rights than it needs."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from tests.testbed.containers import NODES, data_volume, docker
from tests.testbed.runs import ROUNDS, spec


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
    volumes = {data_volume(c) for c in containers}
    assert len(volumes) == NODES
    tokens = [t for t in json.loads(testbed.covey("coordinator", "token", "list", "--json")) if t["role"] == "node"]
    assert [(token["node"], token["uses"] - token["uses_left"]) for token in tokens] == [("site", NODES)]


SECRETS = r"find / -xdev \( -name '*.key' -o -name '*.token' -o -name .git \) 2>/dev/null || true"


def test_nothing_runs_as_root_and_no_secret_is_in_the_image(testbed):
    for service in ("coordinator", "node"):
        container = testbed.containers(service)[0]
        assert docker("exec", container, "id", "-u").strip() == "10001"
        settings = json.loads(docker("inspect", container))[0]
        assert settings["HostConfig"]["ReadonlyRootfs"]
        assert not any("PASSWORD" in variable.upper() for variable in settings["Config"]["Env"])
    found = docker("run", "--rm", "--entrypoint", "sh", testbed.image, "-c", SECRETS)
    assert not found.strip()
