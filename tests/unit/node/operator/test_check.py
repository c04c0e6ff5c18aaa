"""What `covey node check --spec` says of a run, by a worker that is not a process of its own."""

from typing import cast

import torch

from covey.node.operator.check import _task
from covey.node.operator.config import NodeSettings
from covey.node.operator.policy import Policy
from covey.spec import parse_data
from covey.worker.client.client import Worker
from covey.worker.execute.node_ops import check
from covey.worker.program.host import Host
from tests.unit.node.memory import Node


class WorkerHere:
    async def do(self, operation, job, *, stall_s):
        return check(job, Host(torch.device("cpu")))


async def test_a_run_that_asks_for_figures_has_no_model(tmp_path):
    options = {"columns": ["pixel-mean"], "ranges": {"pixel-mean": [0, 1]}, "epsilon": 1.0}
    method = {"name": "statistics", "options": options}
    spec = parse_data({"name": "x", "task": {"name": "digits"}, "method": method, "rounds": {"count": 1}})
    found = await _task(
        Node(tmp_path, settings=NodeSettings(policy=Policy(max_epsilon=2.0, min_k=10))).services.config,
        cast(Worker, WorkerHere()),
        spec,
    )
    assert [finding.what for finding in found] == ["task digits", "privacy"]
    assert found[0].text == "1437 examples, figures of which go into its answer; there is no model"
