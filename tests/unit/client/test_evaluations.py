"""What came of an evaluation, as it is read: who took part, who gains, and why the others did not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from covey.artifact import Artifact
from covey.client.models.continuing import continuation
from covey.client.models.evaluating import Wanted, evaluation_of
from covey.client.models.evaluations import Evaluation, evaluation_in
from covey.client.reading.figures import read_figures
from covey.client.reading.names import RunName, VersionName
from covey.client.values import Node, Round, RoundDetail, Run, Update, Version
from covey.errors import NotFound
from covey.spec import parse_data


def answer(node: str, accuracy: float, alone: float | None = None, **missing: str) -> Update:
    metrics: dict[str, Any] = {"evaluation/accuracy": [accuracy * 10, 10]}
    if alone is not None:
        metrics["evaluation/alone/accuracy"] = [alone * 10, 10]
    return Update(
        node, "accepted", weight=10, metrics=metrics, missing={f"evaluation/{n}": w for n, w in missing.items()}
    )


class Record:
    """One round of a run that only evaluates."""

    def __init__(self, *updates: Update, nodes: Sequence[str] = (), **section: Any) -> None:
        self.updates, self.names = updates, nodes
        self.spec = {"evaluation": {"only": True, "metric": "accuracy", "goal": "max", **section}}

    def run(self, run: RunName) -> Run:
        return Run(
            "id", "digits", "rounds", "completed", spec=self.spec, started_at=1.0, metrics={"nodes/accuracy": 0.5}
        )

    def round(self, run: RunName, number: int) -> RoundDetail:
        return RoundDetail(Round(number, "committed"), self.updates)

    def nodes(self) -> Sequence[Node]:
        states = {"d": "evicted"}
        return [Node(name, states.get(name, "away")) for name in self.names]


def read(record: Record) -> Evaluation:
    return evaluation_in(record, "digits")


def test_those_who_took_no_part_come_last_with_the_reason() -> None:
    declined = Update("b", "declined", "no data")
    record = Record(answer("c", 0.5), declined, nodes=("a", "b", "c", "d", "e"))
    record.spec["evaluation"]["nodes"] = ["b", "c", "d", "e"]
    assert [(node.node, node.verdict, node.reason) for node in read(record).nodes] == [
        ("c", "accepted", ""),
        ("a", "not asked", "it was not selected"),
        ("b", "declined", "no data"),
        ("d", "not asked", "it is evicted"),
        ("e", "not asked", "it was not connected when the round began"),
    ]


@pytest.mark.parametrize(("goal", "gaining"), [("max", ("a",)), ("min", ("b",))])
def test_who_gains_follows_from_the_run_s_goal(goal: str, gaining: tuple[str, ...]) -> None:
    shown = read(
        Record(answer("a", 0.9, 0.5), answer("b", 0.3, 0.5), answer("c", 0.5, 0.5), answer("e", 0.5), goal=goal)
    )
    assert shown.gaining == gaining
    assert {*shown.gaining, *shown.not_gaining} == {"a", "b", "c"}
    assert shown.gains == pytest.approx({"accuracy": 0.2 / 3})
    assert shown.metrics == {"accuracy": 0.5}


def test_a_metric_that_is_missing_is_said_and_another_one_stands_for_it() -> None:
    shown = read(Record(answer("a", 0.5, loss="it is nan"), metric="f1"))
    assert (shown.metric, shown.nodes[0].missing) == ("accuracy", {"loss": "it is nan"})


STATISTICS = {"method": {"name": "statistics"}}


@pytest.mark.parametrize(
    ("state", "told"),
    [("stopped", "it ended before its last round"), ("running", "covey run logs says what it waits for")],
)
def test_a_statistics_run_has_figures_once_its_last_round_is_committed_and_never_a_model(state: str, told: str) -> None:
    run = Run("3f9a", "ages", "rounds", state, rounds=2, rounds_committed=1, spec=STATISTICS)
    runs: Any = SimpleNamespace(run=lambda _: run)
    with pytest.raises(NotFound, match=told):
        read_figures(runs, run)
    with pytest.raises(NotFound, match="has no model"):
        evaluation_of(runs, "ages", Wanted())


TRAINING: dict[str, Any] = {"name": "tumours", "task": {"name": "digits"}}


@dataclass
class Study:
    """Run `tumours` of study `brain`, and runs of other names there."""

    names: set[str] = field(default_factory=set)

    def run(self, run: RunName) -> Run:
        spec = parse_data({**TRAINING, "study": "brain", "priority": 3}).model_dump(mode="json", by_alias=True)
        if run in ("brain/tumours", *(f"brain/{name}" for name in self.names)):
            return Run("id", "tumours", "rounds", "completed", spec=spec)
        raise NotFound(f"there is no run {run}")

    def version(self, run: RunName, version: VersionName = "newest") -> Version:
        return Version(7, "", Artifact("", 0, b""))


@pytest.mark.parametrize("given", [None, TRAINING])
def test_an_evaluation_is_of_the_study_whose_model_it_is_under_a_name_that_is_free(given: Any) -> None:
    study = Study()
    for name in ("tumours-evaluation", "tumours-evaluation-2", "tumours-evaluation-3"):
        asked = parse_data(evaluation_of(study, "brain/tumours@7", Wanted(), given))
        assert (asked.study, asked.name, asked.priority) == ("brain", name, 0 if given else 3)
        study.names.add(name)
    again = evaluation_of(study, "brain/tumours", Wanted(), {**TRAINING, "name": "x-evaluation-2", "study": "brain"})
    assert again["name"] == "x-evaluation"
    elsewhere = evaluation_of(study, "brain/tumours", Wanted(), {**TRAINING, "study": "heart"})
    assert elsewhere["study"] == "heart"  # by their own word


def test_a_run_is_continued_in_its_study() -> None:
    parent = Study().run("brain/tumours")
    studies = [parse_data(continuation(parent, 1, changed)).study for changed in (None, TRAINING)]
    assert studies == ["brain", "brain"]
    assert continuation(parent, 1, {**TRAINING, "study": "heart"})["study"] == "heart"
