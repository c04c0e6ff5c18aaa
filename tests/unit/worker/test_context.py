import sys
from pathlib import Path

import pytest
import torch

from covey.errors import LayoutError, PluginError
from covey.learning.models.state import layout_of
from covey.spec import RoundsSpec, TaskSection
from covey.worker.program.context import MAX_RUNS, Contexts, RunContext

CPU = torch.device("cpu")


def spec(hidden: int = 8) -> str:
    return RoundsSpec(name="r", task=TaskSection(name="digits", options={"hidden": hidden})).to_json()


def get(contexts: Contexts, run: str, text: str, **options: int) -> RunContext:
    return contexts.get(run, text, allow_path=False, paths={}, options=dict(options))


def test_a_run_is_held_until_something_about_it_changes() -> None:
    contexts = Contexts(CPU)
    first = get(contexts, "a", spec())
    assert get(contexts, "a", spec()) is first
    assert first.model is first.model
    assert get(contexts, "a", spec(9)) is not first
    assert get(contexts, "a", spec(9)) is not get(contexts, "a", spec(9), x=1)


def test_only_the_newest_runs_are_held() -> None:
    contexts = Contexts(CPU)
    first = get(contexts, "0", spec())
    for i in range(1, MAX_RUNS):
        get(contexts, str(i), spec())
    assert get(contexts, "0", spec()) is first
    get(contexts, "new", spec())
    assert get(contexts, "0", spec()) is first
    for i in range(MAX_RUNS):
        get(contexts, f"newer-{i}", spec())
    assert get(contexts, "0", spec()) is not first


def test_the_first_model_follows_from_the_seed() -> None:
    torch.manual_seed(1)
    first = RunContext(spec(), CPU, paths={}, options={}, allow_path=False).model.state_dict()
    torch.manual_seed(2)
    second = RunContext(spec(), CPU, paths={}, options={}, allow_path=False).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_layout_is_refused_with_its_first_difference() -> None:
    context = get(Contexts(CPU), "a", spec(8))
    assert context.require_layout(context.layout.canonical_bytes().decode()) == layout_of(context.model)
    wider = get(Contexts(CPU), "b", spec(9)).layout.canonical_bytes().decode()
    with pytest.raises(LayoutError, match=r"here model tensor '0\.weight' float32 \[8, 64\].*\[9, 64\]"):
        context.require_layout(wider)
    linear = get(Contexts(CPU), "c", spec(0)).layout.canonical_bytes().decode()
    with pytest.raises(LayoutError, match="tensor"):
        context.require_layout(linear)


def test_a_task_by_path_only_where_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
    text = RoundsSpec(name="r", task=TaskSection(name="worker_tasks:Normed")).to_json()
    with pytest.raises(PluginError):
        _ = RunContext(text, CPU, paths={}, options={}, allow_path=False).task
    assert type(RunContext(text, CPU, paths={}, options={}, allow_path=True).task).__name__ == "Normed"
