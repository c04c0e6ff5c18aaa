"""An evaluation that goes wrong costs metrics, and says why; never the training that comes with it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from covey.errors import PolicyError
from covey.learning.task import NodeData, Stat
from covey.metrics import ALONE, EVALUATION, Metrics, counted, missing, ratios
from covey.spec import parse_data, parse_json
from covey.worker.execute.coordinator_ops import initial
from covey.worker.execute.node_ops import evaluate, train
from covey.worker.jobs.evaluation import EvaluateJob
from covey.worker.jobs.runs import InitialJob
from covey.worker.jobs.training import FilterOrder, TrainJob, TrainLimits, TrainResult
from covey.worker.program.host import Host
from tests.unit.worker import worker_tasks


class Odd(worker_tasks.Normed):
    """Its evaluation is what the node's option `kind` says."""

    kind = ""

    def eval_data(self, data: NodeData) -> TensorDataset | None:
        Odd.kind = str(data.options.get("kind", ""))
        if Odd.kind == "no file":
            return TensorDataset(torch.load("/does/not/exist.pt"))
        return worker_tasks.made(20, 2)

    def central_data(self) -> TensorDataset | None:
        return worker_tasks.made(20, 3)

    def evaluate(self, model: nn.Module, batch: Any) -> Mapping[str, Stat]:
        found: dict[str, Any] = {"loss": Stat(1.0, 2.0)}
        match Odd.kind:
            case "nan":
                found["auc"] = Stat(math.nan, 1.0)
            case "infinite":
                found["auc"] = Stat(math.inf, 1.0)
            case "none":
                found["auc"] = None
            case "said":
                found["auc"] = Stat.missing("one class only")
            case "float":
                found["auc"] = 0.7
            case "curve":
                found |= {f"auroc/bin-{number}": Stat(float(number), 100.0) for number in range(50)}
            case "raises":
                raise ValueError("only one class present in y_true")
            case "exits":
                raise SystemExit(3)
            case "list":
                return [0.5]  # type: ignore[return-value]
        return found


HOST = Host(torch.device("cpu"))
SPEC = parse_data(
    {
        "name": "test",
        "seed": 7,
        "task": {"name": f"{__name__}:Odd"},
        "training": {"learning_rate": 0.1, "batch_size": 8, "local_epochs": 1},
    }
).to_json()
WHOLE = ["no file", "float", "raises", "exits", "list"]
ONE = ["nan", "infinite", "none", "said"]
TOLD = {
    "nan": "it is nan over 1",
    "infinite": "it is inf over 1",
    "none": "it is None",
    "said": "one class only",
    "no file": "Task.eval_data: FileNotFoundError",
    "float": r"Odd.evaluate \(.*\.py:\d+\) returned the float 0.7 for 'auc'; return a mapping of names to Stat",
    "raises": "ValueError: only one class present in y_true",
    "exits": r"called sys.exit\(3\)",
    "list": r"Odd.evaluate \(.*\.py:\d+\) returned a list; return a mapping of names to Stat",
}


def trained(folder: Path, kind: str, spec: str = SPEC) -> TrainResult:
    made = initial(InitialJob("run", SPEC, folder / "base", True), HOST)
    job = TrainJob(
        run="run",
        spec_json=spec,
        layout=made.layout,
        round=1,
        roster_index=0,
        num_partitions=1,
        base=folder / "base",
        scratch={part: folder / f"{kind}-{part}" for part in ("model", "buffers")},
        evaluate=True,
        node_options={"kind": kind},
        allow_path=True,
    )
    return train(job, HOST)


def told(metrics: Metrics, name: str, kind: str) -> bool:
    return re.search(TOLD[kind], missing(metrics)[name]) is not None


@pytest.mark.parametrize("kind", [*ONE, *WHOLE])
def test_an_update_counts_whatever_becomes_of_its_evaluation(tmp_path: Path, kind: str) -> None:
    result = trained(tmp_path, kind)
    assert counted(result.metrics)["loss"][0] > 0
    assert [part.artifact for part in result.parts] == [part.artifact for part in trained(tmp_path, "").parts]
    assert told(result.evaluation, "auc" if kind in ONE else EVALUATION, kind)


@pytest.mark.parametrize("kind", ONE)
def test_one_metric_that_is_not_defined_leaves_the_others(tmp_path: Path, kind: str) -> None:
    assert counted(trained(tmp_path, kind).evaluation) == {"loss": (1.0, 2.0)}


@pytest.mark.parametrize("where", ["central", "node"])
@pytest.mark.parametrize("kind", ["nan", "raises"])
def test_an_evaluation_of_a_version_says_what_is_missing(tmp_path: Path, where: Any, kind: str) -> None:
    trained(tmp_path, kind)  # makes the first model
    Odd.kind = kind
    job = EvaluateJob("run", SPEC, tmp_path / "base", where, node_options={"kind": kind}, allow_path=True)
    assert told(evaluate(job, HOST).metrics, "auc" if kind in ONE else EVALUATION, kind)


def test_curves_of_the_model_and_of_the_one_trained_alone_are_both_whole(tmp_path: Path) -> None:
    only = {"model": {"initial": "run:x"}, "rounds": {"count": 1}, "evaluation": {"only": True, "local_rounds": 1}}
    spec = parse_data(parse_json(SPEC).model_dump(mode="json", by_alias=True) | only).to_json()
    shown = ratios(trained(tmp_path, "curve", spec).evaluation)
    assert shown["auroc"] == shown[f"{ALONE}auroc"] == ratios(trained(tmp_path, "curve").evaluation)["auroc"]
    assert missing(shown) == {}


def test_an_evaluation_that_is_asked_for_by_itself_keeps_the_operator_s_rules(tmp_path: Path) -> None:
    trained(tmp_path, "curve")  # makes the first model
    asked = EvaluateJob("run", SPEC, tmp_path / "base", "node", node_options={"kind": "curve"}, allow_path=True)
    little = replace(asked, filters=(FilterOrder("tests.unit.worker.worker_tasks:SaysLittle"),))
    assert evaluate(little, HOST).metrics == {"loss": (1.0, 2.0)}
    assert evaluate(replace(asked, limits=TrainLimits(examples=20)), HOST).metrics == evaluate(asked, HOST).metrics
    too_few = evaluate(replace(asked, limits=TrainLimits(examples=21)), HOST).metrics
    assert re.search("evaluation on 20 examples; .* fewer than 21", missing(too_few)[EVALUATION])
    with pytest.raises(PolicyError, match="this run is not private on this node"):
        evaluate(replace(asked, limits=TrainLimits(max_epsilon=5.0)), HOST)
