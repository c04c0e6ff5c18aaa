"""A task's whole way in one process, without daemons: model, one batch, one round, one evaluation (`covey task check`).

The operations are the worker's own. What the task's code raises is shown as Python shows it.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from covey.errors import CoveyError
from covey.metrics import Metrics, counted, missing, ratios
from covey.plugins import by_path
from covey.spec import RunSpec, parse_json
from covey.testing.method_rounds import CONSENT, MethodRounds
from covey.user_code.place import is_users
from covey.worker.execute.node_ops import check, evaluate
from covey.worker.jobs.evaluation import EvaluateJob
from covey.worker.jobs.runs import CheckJob
from covey.worker.program.host import Host


@dataclass(frozen=True)
class Finding:
    """What one part of the way came to."""

    what: str
    ok: bool
    text: str


def rehearse(spec: RunSpec, folder: Path, paths: Mapping[str, str]) -> Iterator[Finding]:
    """Go the way, one part after the other.

    Args:
        spec: The run; its task may be named by import path.
        folder: An empty folder.
        paths: Where the task finds a node's data.

    Raises:
        CoveyError: A part of it fails; the parts before it were given.
    """
    text = spec.to_json()
    rounds = MethodRounds(spec, folder, nodes=1, paths=paths)
    model = rounds.layout.part("model")
    buffers = len(rounds.layout.part("buffers").tensors)
    more = f", and {buffers} buffers" if buffers else ""
    yield Finding("model", True, f"{model.numel:,} parameters in {len(model.tensors)} tensors{more}")

    host = Host(torch.device("cpu"))
    batch = check(CheckJob(text, node_paths=paths, allow_path=True, limits=CONSENT), host)
    examples = f"{batch.examples:,} examples here, loss of the first batch {batch.loss:.4g}"
    yield Finding("batch", math.isfinite(batch.loss), f"{examples}, {batch.seconds_per_step * 1000:.1f} ms a step")

    for warning in batch.warnings:
        yield Finding("warning", True, warning)

    before = rounds.tensors()
    (verdict,) = rounds.round().verdicts
    after = rounds.tensors()
    change = math.sqrt(sum(float((after[name].double() - before[name].double()).square().sum()) for name in before))
    why = "" if verdict.accepted else f": {verdict.reason}"
    moves = rounds.description.global_model
    moved = f"; the model moved by {change:.4g}" if change else "; training left the model as it was" if moves else ""
    well = verdict.accepted and (change > 0 or not moves)
    yield Finding("round", well, f"the update was {verdict.verdict}{why}{moved}")

    for where in ("node", "central"):
        job = EvaluateJob("run", text, rounds.model, where, paths, {}, True, rounds.layout.to_json())
        is_needed = where == "node" and (spec.evaluation.only or spec.evaluation.where == "nodes")
        yield _evaluation(where, evaluate(job, host).metrics, is_needed=is_needed)


def _evaluation(where: str, metrics: Metrics, *, is_needed: bool) -> Finding:
    what = "evaluation on the node" if where == "node" else "evaluation on the coordinator"
    means = ratios(metrics)
    values = [f"{name} {value:.4g}" for name, value in sorted(counted(means).items()) if not isinstance(value, str)]
    lacking = [f"{name} is missing: {reason}" for name, reason in sorted(missing(means).items())]
    if not values and not lacking:
        asked = ", and the run asks nodes to evaluate ([evaluation])" if is_needed else ""
        return Finding(what, not is_needed, f"none: the task has no such data{asked}")
    return Finding(what, not lacking, "; ".join([*values, *lacking]))


def shown(spec: RunSpec, paths: Mapping[str, str], say: Callable[[Finding], object]) -> bool:
    """Go the way and say each part; whether all went well. What goes wrong is shown with its traceback."""
    well = True
    with tempfile.TemporaryDirectory(prefix="covey-task-") as folder, by_path(True):
        try:
            for finding in rehearse(spec, Path(folder), paths):
                well = well and finding.ok
                say(finding)
        except CoveyError as error:
            if error.__cause__ is not None:
                _show(error.__cause__)
            say(Finding("task", False, str(error) + _advice(error.__cause__, paths)))
            return False
    return well


ABSTRACT = re.compile(r"abstract methods? '?(\w+)")
"""As Python says it of a class that has not all that it must have."""


def _show(error: BaseException) -> None:
    """Its traceback, from the first code on that is the user's; without such code words say it all."""
    at = error.__traceback__
    while at is not None and not is_users(at.tb_frame.f_code.co_filename):
        at = at.tb_next
    if at is not None or isinstance(error, SyntaxError):
        traceback.print_exception(type(error), error, at)


def _advice(error: BaseException | None, paths: Mapping[str, str]) -> str:
    """What to add to the task, or to the command, where that is known; empty: it is something else."""
    if isinstance(error, TypeError) and (lacks := ABSTRACT.search(str(error))):
        return f"; write `def {lacks[1]}(self, ...)` in it"
    if not isinstance(error, KeyError) or error.args[0] in paths:
        return ""
    line = traceback.extract_tb(error.__traceback__)[-1].line or ""
    return f"; the task looks for a path: give it with --data {error.args[0]}=FILE" if "paths" in line else ""


def main() -> None:
    """The program of `covey task check`: one JSON argument is its question; what the task prints goes to stderr."""
    question: dict[str, Any] = json.loads(sys.argv[1])
    sys.path.append(str(Path.cwd()))  # for the user's modules; behind everything else, so that it hides nothing
    out, sys.stdout = sys.stdout, sys.stderr
    findings = list[Finding]()

    def say(finding: Finding) -> None:
        findings.append(finding)
        if not question["json"]:
            print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.what}: {finding.text}", file=out, flush=True)

    well = shown(parse_json(question["spec"]), question["paths"], say)
    if question["json"]:
        print(json.dumps([asdict(finding) for finding in findings]), file=out)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
