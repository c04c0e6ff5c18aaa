"""Plug-ins that are named by import path, good ones and bad ones: one federation whose operators allow them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from covey.testing.federation import Federation
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]
ROOT = Path(__file__).resolve().parents[2]
NODES = 3
PLUGINS = """
import sys
import time

import torch
from torch import nn
from torch.utils.data import TensorDataset

from covey.aggregation.attacks.contract import Attack
from covey.aggregation.contract import Aggregator
from covey.aggregation.fltrust import FLTrust
from covey.learning.task import Task
from covey.options import PluginOptions
from covey.aggregation.attacks.single import scaled


def rows(seed, count=60):
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x.sum(1) > 0).long())


class Scans(Task):
    def model(self):
        return nn.Linear(4, 2)

    def train_data(self, data):
        return rows(1)

    def eval_data(self, data):
        return rows(2)

    def central_data(self, data=None):
        return rows(int(open(data.paths["trusted"]).read()), 200)


class Trusting(FLTrust):
    pass


class Flipped(Attack):
    def vector(self, own, context):
        return scaled(own, -3.0)


class Bad(FLTrust):
    class Options(PluginOptions):
        fault: str = ""

    options: Options
    needs_root = False

    def aggregate(self, updates, state, context):
        fault, held = self.options.fault, []
        if fault == "exits":
            sys.exit("enough")
        while fault == "hangs":
            time.sleep(1)
        while fault == "eats":
            held.append(torch.ones(1 << 26))
        raise ValueError("the rule is wrong")
"""


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Nodes 0 and 1 are honest, node 2 attacks by a class of its operator's own; the coordinator's data are a file."""
    folder = tmp_path_factory.mktemp("by-path")
    (folder / "site_plugins.py").write_text(PLUGINS)
    (folder / "trusted.txt").write_text("3")
    path = [str(folder), str(ROOT / "examples" / "plugins"), *filter(None, [os.environ.get("PYTHONPATH")])]
    with Federation(folder / "federation", nodes=NODES, env={"PYTHONPATH": os.pathsep.join(path)}) as made:
        options = ["--allow-paths", "--path", f"trusted={folder / 'trusted.txt'}"]
        made.start_coordinator(options=[*options, "--stall", "5s", "--worker-memory", "1GiB"])
        made.join()
        for index in range(NODES):
            allowed = json.dumps(["site_plugins:Scans", "int16:Int16"])
            (made.node_dir(index) / "node.toml").write_text(f"[policy]\nallow_paths = {allowed}\n")
            made.start_node(index, options=["--attack", "site_plugins:Flipped"] if index == 2 else [])
        made.wait_connected(NODES)
        yield made


def submitted(federation: Federation, name: str, rule: str, options: str = "") -> str:
    extra = f'[aggregation]\nname = "{rule}"\n{options}\n[exchange]\ncodec = "int16:Int16"\n[keep]\nupdates = 10'
    return federation.submit(spec(name, task="site_plugins:Scans", rounds=2, min_nodes=NODES, extra=extra))


def check_trusted(federation: Federation, name: str) -> str:
    """A run with rule, codec, task, attack and trusted data of one's own ends as it should; its id."""
    run = submitted(federation, name, "site_plugins:Trusting", "root_examples = 32")
    shown = federation.wait(run)
    assert (shown["state"], shown["rounds_committed"]) == ("completed", 2)
    updates = {update["node"]: update for update in federation.admin.round(run, 2)["updates"]}
    assert [update["verdict"] for update in updates.values()] == ["accepted", "accepted", "rejected"]
    assert "does not point the way of the update from the trusted data" in updates["n2"]["reason"]
    assert {update["bytes"] for update in updates.values()} == {4 + 2 * 10}
    return run


def test_task_rule_codec_attack_and_central_data_by_path_and_their_replay(federation: Federation) -> None:
    run = check_trusted(federation, "own")
    drills = {node["node"]: node["drill"] for node in federation.admin.nodes()}
    assert drills == {"n0": "", "n1": "", "n2": "site_plugins:Flipped"}
    where = ["--data-dir", federation.coordinator_dir, "--json"]
    trusted = federation.root.parent / "trusted.txt"
    replayed = json.loads(federation.cli("run", "replay", run, "--allow-paths", "--path", f"trusted={trusted}", *where))
    assert (replayed["ok"], replayed["problems"]) == (True, [])
    assert replayed["model_sha256"] == federation.show(run)["model_sha256"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("hangs", "'step' made no step for 5 s (it was at "),
        ("exits", "the task's code called sys.exit('enough')"),
        ("eats", "allocate"),
        ("raises", "ValueError: the rule is wrong"),
    ],
)
def test_a_rule_that_goes_wrong_ends_its_own_run_in_words(federation: Federation, fault: str, reason: str) -> None:
    bad = submitted(federation, fault, "site_plugins:Bad", f'[aggregation.options]\nfault = "{fault}"')
    shown = federation.wait(bad, ["failed"])
    assert shown["state"] == "failed"
    assert shown["reason"].startswith("round 1 cannot be aggregated: ")
    assert reason in shown["reason"]
    if fault in ("hangs", "raises"):
        assert "site_plugins.py" in shown["reason"]
    if fault == "hangs":
        assert federation.rounds(bad)[0]["state"] == "failed"


def test_the_next_run_is_clean(federation: Federation) -> None:
    check_trusted(federation, "after")
