"""Runs through a coordinator as their choices: what each kind may be, the numbers it needs, and whether it is accepted.

A `Case` names one choice of each kind; those that work are changed one choice at a time, or several.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch

from covey.errors import LayoutError, PluginError, SpecError
from covey.plugins import installed
from covey.spec import RunSpec, parse_data
from covey.testing import method_rounds
from covey.worker.execute.coordinator_ops import describe
from covey.worker.jobs.runs import DescribeJob
from covey.worker.program.host import Host

Case = dict[str, Any]
"""A choice of each kind, by the keys of `ROUNDS`."""
F = ("trimmed-mean", "krum", "multi-krum", "bulyan", "minimum-diameter", "zeno", "meamed", "monna", "caf", "smea")
NUMBERS: Mapping[str, Mapping[str, Any]] = {
    **{rule: {"f": 1} for rule in F},
    "kardam": {"f": 0},
    "buffered": {"k": 2},
    "basgd": {"buffers": 2},
    "static-clip": {"c": 1.0},
    "dp-sign": {"epsilon": 0.5, "delta": 1e-5, "clip": 1.0},
    "top-k": {"fraction": 0.5},
    "random-k": {"fraction": 0.5},
    "codistill": {"classes": 2},
    "statistics": {"columns": ["first"]},
}
"""Options that a plug-in cannot do without."""

ROUNDS: Case = {
    "mode": "rounds",
    "method": "none",
    "codec": "none",
    "rule": "mean",
    "payload": "delta",
    "steps": "epochs",
    "feedback": None,
    "downlink": "auto",
    "momentum": 0.0,
    "weights": "examples",
    "optimizer": "sgd",
    "pre": "",
    "fallback": "",
    "task": "PlainExample",
    "where": "auto",
    "participants": 1.0,
}
VOTES = ROUNDS | {"rule": "majority-vote", "codec": "sign", "weights": "equal", "payload": "gradient", "steps": "one"}
UPDATES = ROUNDS | {"mode": "async", "rule": "staleness-mean"}
STEPS_ALIKE = ROUNDS | {"steps": "three"}
COMPARED = UPDATES | {"rule": "kardam", "payload": "gradient", "steps": "one"}
STEPS = {"epochs": {"local_epochs": 1}, "one": {"local_steps": 1}, "three": {"local_steps": 3}}


def names(kind: str) -> list[str]:
    """Those of a kind that come with covey."""
    return [plugin.name for plugin in installed(kind) if plugin.package == "covey"]


def spec_of(case: Case) -> dict[str, Any]:
    """The specification of a case, with a task so small that a round of it takes milliseconds."""
    aggregation: dict[str, Any] = {"name": case["rule"], "options": dict(NUMBERS.get(case["rule"], {}))}
    if case["rule"] in ("fltrust", "zeno", "monna"):
        aggregation["root_examples"] = 8
    if case["pre"]:
        aggregation["pre"] = [{"name": case["pre"], "options": dict(NUMBERS.get(case["pre"], {}))}]
    if case["fallback"]:
        aggregation["fallback"] = {"name": case["fallback"]}
    exchange = {key: case[key] for key in ("codec", "payload", "downlink")} | {"worker_momentum": case["momentum"]}
    exchange |= {"options": dict(NUMBERS.get(case["codec"], {})), "error_feedback": case["feedback"]}
    rounds = {"count": 2, "participants": case["participants"]} if case["mode"] == "rounds" else {}
    return {
        "name": "case",
        "mode": case["mode"],
        "seed": 5,
        "task": {"name": f"{method_rounds.__name__}:{case['task']}"},
        "training": {"learning_rate": 0.1, "batch_size": 8, **STEPS[case["steps"]]},
        "method": {"name": case["method"], "options": dict(NUMBERS.get(case["method"], {}))},
        "exchange": exchange,
        "aggregation": aggregation,
        "weights": {"by": case["weights"]},
        "server_optimizer": {"name": case["optimizer"]},
        "evaluation": {"where": case["where"]},
        "rounds": rounds,
    }


@lru_cache(maxsize=4096)
def _looked_at(text: str) -> RunSpec | SpecError | PluginError | LayoutError:
    try:
        spec = parse_data(json.loads(text), later=True)
        describe(DescribeJob(spec.to_json(), allow_path=True, submitted=True), Host(torch.device("cpu")))
    except (SpecError, PluginError, LayoutError) as error:
        return error
    return spec


def accepted(case: Case) -> RunSpec | SpecError | PluginError | LayoutError:
    """The specification, or the one message with which it is refused at submission."""
    return _looked_at(json.dumps(spec_of(case)))
