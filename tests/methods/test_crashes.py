"""kill -9 at every fault point that a method's run passes, in one run each: the model is that of an undisturbed run.

Also inside a method's own work: at `method-plan` and `method-finish` the coordinator's worker has called the method,
and either it dies there, or the coordinator does (`:daemon`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from covey.coordinator.config import sqlite_url
from covey.storage.sql.store import open_store
from covey.testing.federation import Federation
from tests.faults.chain import PATIENT, run_along
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]
NODES, ROUNDS = 2, 30
TASKS = '''
from torch import nn

from covey.learning.tasks.digits import Digits


class Large(Digits):
    """Digits with a model of a few chunks, so that its files are streamed."""

    def model(self):
        return nn.Sequential(nn.Linear(64, 4096), nn.ReLU(), nn.Linear(4096, 10))
'''
METHODS = {"scaffold": '[method]\nname = "scaffold"\n[weights]\nby = "equal"', "bid": '[method]\nname = "bid"'}
OF_THE_COORDINATOR = [
    "invite:2",
    "download-chunk:2",
    "upload-chunk:2",
    "update-recorded:1",
    "aggregate:1",
    "aggregate-block:1:daemon",
    "before-commit:1",
    "after-commit:1",
    "method-finish:1:daemon",
    "method-finish:2,after-commit:3",  # the worker first
]
OF_PHASES = [
    "before-phase:1",
    "after-phase:1",
    "method-plan:1:daemon",
    "method-plan:2:daemon",
    "method-plan:3,after-phase:3",  # the worker first
]
OF_A_NODE = [
    "assigned:1",
    "node-download-chunk:1",
    "downloaded:1",
    "training-step:1:daemon",
    "trained:1",
    "journaled:1",
    "node-upload-chunk:1",
]
AFTER_A_PHASE = ["assigned:2", "journaled:2"]


def text_of(method: str, name: str) -> str:
    data = '[data]\npartition = "dirichlet"\nalpha = 1.0\n[evaluation]\nevery = 10\n'
    rounds = {"rounds": ROUNDS, "min_nodes": NODES, "policy": PATIENT, "training": "local_steps = 2"}
    return spec(f"{method}-{name}", task="crash_tasks:Large", extra=data + METHODS[method], **rounds)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, search: str) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("method-crashes")
    (folder / "crash_tasks.py").write_text(TASKS)
    with Federation(folder, NODES, env={"PYTHONPATH": f"{folder}{os.pathsep}{search}"}) as made:
        made.start_coordinator(options=["--allow-paths"])
        made.join()
        for index in range(NODES):
            (made.node_dir(index) / "node.toml").write_text('[policy]\nallow_paths = ["crash_tasks:Large"]\n')
            made.start_node(index)
        made.wait_connected(NODES)
        yield made


def shas_of(folder: Path, run: str) -> tuple[list[str], str]:
    """The model of every version, and who was asked most often for a further answer."""
    with closing(open_store(sqlite_url(folder))) as store:
        assert store.check() == []
        asked = Counter(str(item["node"]) for step in store.steps(run) for item in step.opens)
        return [version.model_sha256 for version in store.versions(run)], max(
            asked, key=asked.__getitem__, default="n0"
        )


@pytest.mark.parametrize(
    ("method", "coordinator", "node"),
    [("scaffold", OF_THE_COORDINATOR, OF_A_NODE), ("bid", OF_THE_COORDINATOR + OF_PHASES, OF_A_NODE + AFTER_A_PHASE)],
)
def test_one_run_along_all_points(federation: Federation, method: str, coordinator: list[str], node: list[str]) -> None:
    undisturbed = federation.wait(federation.submit(text_of(method, "undisturbed")), timeout_s=200)["run"]
    shas, leader = shas_of(federation.coordinator_dir, undisturbed)
    index = federation.names.index(leader)
    disturbed = run_along(
        federation,
        text_of(method, "disturbed"),
        coordinator=coordinator,
        node=node,
        index=index,
        options=["--allow-paths"],
    )
    assert shas_of(federation.coordinator_dir, disturbed["run"])[0] == shas
    assert all(r["accepted"] >= 1 and not r["rejected"] for r in federation.rounds(disturbed["run"]))
    text = federation.coordinator.log.read_text() if federation.coordinator else ""
    assert "the worker died" in text
