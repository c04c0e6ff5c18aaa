"""Methods, codecs, rules, payloads, modes and more, combined: each is refused in words at submission, or works.

The cases are drawn from the whole product, near three runs that work, so that about half of them are accepted. One that
is accepted plays a round, or takes a decision on each node's update, with a small task: nothing fails later.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from covey.errors import CoveyError
from covey.spec import RunSpec
from covey.testing.catalogue.cases import COMPARED, ROUNDS, UPDATES, VOTES, Case, accepted, names
from covey.testing.method_rounds import MethodRounds
from covey.worker.execute.step_op import step
from covey.worker.jobs.steps import StepAnswer, StepJob, StepResult
from covey.worker.program.host import Host

NODES = 7
"""Enough for every rule with f = 1."""
CASES, GROUPS = 280, 7
CHANGED = 3
"""Of a run that works, about so many choices are made anew."""
CHOICES: dict[str, list[Any]] = {
    "mode": ["rounds", "async"],
    "method": names("method"),
    "codec": names("codec"),
    "payload": ["delta", "gradient", "parameters"],
    "steps": ["epochs", "one", "three"],
    "feedback": [None, True, False],
    "downlink": ["auto", "model", "change"],
    "momentum": [0.0, 0.9],
    "weights": ["examples", "equal"],
    "optimizer": names("server-optimizer"),
    "pre": ["", *names("pre-aggregator")],
    "fallback": ["", "median", "majority-vote"],
    "task": ["PlainExample", "NormedExample"],
    "where": ["auto", "central", "nodes", "both"],
    "participants": [1.0, 0.5, 3, 7],
}


def drawn() -> list[Case]:
    """Every choice of every kind alone, then several at once."""
    rules = {"rounds": names("aggregator"), "async": names("async-policy")}
    alone = [base | {key: value} for base in (ROUNDS, UPDATES) for key in CHOICES for value in CHOICES[key]]
    alone += [base | {"rule": rule} for base in (ROUNDS, UPDATES, COMPARED) for rule in rules[base["mode"]]]
    alone += [base | {"codec": codec} for base in (VOTES, COMPARED) for codec in CHOICES["codec"]]
    rng, cases = random.Random(20), [case for case in alone if case["rule"] in rules[case["mode"]]]
    while len(cases) < CASES:
        case = dict(rng.choice([ROUNDS, VOTES, UPDATES]))
        for key in rng.sample([*CHOICES, "rule", "rule", "codec", "method"], CHANGED):
            case[key] = rng.choice(rules[case["mode"]] if key == "rule" else CHOICES[key])
        if case["rule"] in rules[case["mode"]]:
            cases.append(case)
    return cases


def decide_on_all(run: MethodRounds, folder: Path) -> list[StepResult]:
    """All nodes train from version 0, and a policy decides on one update after the other."""
    host, sent, models, results = Host(torch.device("cpu")), dict[int, StepAnswer](), {0: run.model}, list[StepResult]()
    last, version, state = StepResult(()), 0, dict[str, Path]()
    for number, node in enumerate(run.names, start=1):
        trained = run.train(node, number)
        parts = {part.name: part.path for part in trained.parts}
        sent[number] = StepAnswer(node, float(trained.examples), parts, number=number)
        job = StepJob(
            run="run",
            spec_json=run.spec.to_json(),
            layout=run.layout.to_json(),
            version=version,
            models=models,
            answers=(sent[number],),
            state=state,
            out=folder / f"made-{number}",
            out_state={name: folder / f"{name.replace('/', '-')}-{number}" for name in run.description.slots},
            roster=tuple(run.names),
            allow_path=True,
            state_json=last.state_json,
            held=tuple(sent[held] for held in sorted(_held(results))),
            updates={pinned: sent[pinned].parts for pinned in last.pinned_updates},
        )
        last = step(job, host)
        results.append(last)
        if last.artifact is not None:
            version, state = version + 1, {file.name: file.path for file in last.state}
            models = {**models, version: folder / f"made-{number}"}
    return results


def _held(results: list[StepResult]) -> set[int]:
    now: dict[int, str] = {verdict.number: verdict.verdict for one in results for verdict in one.verdicts}
    return {number for number, verdict in now.items() if verdict == "held"}


def play(spec: RunSpec, folder: Path) -> None:
    run = MethodRounds(spec, folder, NODES)
    if spec.facts.synchronous:
        for _ in range(2):  # in the second, nodes have what they kept, and what the codec said of the first
            result = run.round()
            assert result.artifact is not None or not run.description.global_model
            assert any(verdict.accepted for verdict in result.verdicts)
    else:
        results = decide_on_all(run, folder)
        assert any(verdict.accepted for result in results for verdict in result.verdicts)


def outcomes(cases: list[Case], folder: Path, play: Callable[[RunSpec, Path], None]) -> tuple[int, list[str]]:
    """How many cases were accepted, and those that failed after that, or were refused without a word on what to do."""
    count, failed = 0, list[str]()
    for number, case in enumerate(cases):
        said = accepted(case)
        if not isinstance(said, RunSpec):
            if not all(": " in part or part for part in str(said).split("; ")):
                failed.append(f"{case}: refused with {said}")
            continue
        count += 1
        try:
            play(said, folder / str(number))
        except CoveyError as error:
            failed.append(f"{case}: {type(error).__name__}: {error}")
    return count, failed


@pytest.mark.parametrize("group", range(GROUPS))
def test_each_is_refused_at_submission_or_works(tmp_path: Path, group: int) -> None:
    cases = drawn()[group::GROUPS]
    count, failed = outcomes(cases, tmp_path, play)
    assert not failed, "\n".join(failed)
    assert 0 < count < len(cases)


def test_every_choice_of_every_kind_is_accepted_in_some_case() -> None:
    chosen: dict[str, set[Any]] = {}
    for case in drawn():
        if isinstance(accepted(case), RunSpec):
            for key, value in case.items():
                chosen.setdefault(key, set()).add(value)
    wanted = {key: set(values) for key, values in CHOICES.items()}
    wanted["rule"] = {*names("aggregator"), *names("async-policy")}
    assert {key: wanted[key] - chosen[key] for key in wanted if wanted[key] - chosen[key]} == {}
