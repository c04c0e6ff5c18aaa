"""What a method is shown of a round's answers, and which of its decisions are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from covey.errors import RunFailed
from covey.layout import Layout
from covey.learning.models.state import layout_of, write_model
from covey.methods.averaging import Averaging
from covey.methods.contract import Answer, Close, Open, Part, PlanContext, RunForm, parts_of
from covey.testing.method_rounds import PlainExample, spec_of
from covey.worker.execute.steps.open_step import OpenStep
from covey.worker.execute.steps.plan_round import Planner
from covey.worker.jobs.steps import OpenedPhase, StepAnswer, StepJob, updates_of
from covey.worker.program.host import Host

TASK = {"name": "covey.testing.method_rounds:PlainExample"}
SPEC = spec_of("none", task=TASK)


class Told(Averaging):
    """Two phases, and a plan that it is told."""

    phases = 2
    answer: ClassVar[Open | Close] = Close(())
    seen: ClassVar[list[Any]] = []

    def parts(self, form: RunForm) -> Sequence[Part]:
        word = Part(name="word", max_bytes=8, up=1, combine="collect")
        return (word, *(replace(part, up=2) for part in super().parts(form)))

    def plan(
        self, phase: int, answers: Sequence[Answer], state: Mapping[str, Tensor], context: PlanContext
    ) -> Open | Close:
        self.seen.append((phase, answers, context))
        return self.answer


@pytest.fixture
def ask(tmp_path: Path) -> Any:
    """Ask about answers; each is (node, phase, content of its file), content None: lost; or has its verdict, too."""
    torch.manual_seed(0)
    model = PlainExample().model()
    layout: Layout = layout_of(model)
    write_model(tmp_path / "base", layout, model)

    def ask(plan: Open | Close, *given: tuple[Any, ...]) -> Any:
        Told.answer, Told.seen = plan, []
        answers = [_answer(tmp_path, *each) for each in given]
        job = StepJob(
            run="r",
            spec_json=SPEC.to_json(),
            layout=layout.canonical_bytes().decode(),
            version=0,
            models={0: tmp_path / "base"},
            answers=tuple(answers),
            state={},
            out=tmp_path / "out",
            out_state={},
            roster=("a", "b", "c"),
            allow_path=True,
            phase=max(answer.phase for answer in answers),
        )
        step = OpenStep(job, Host(torch.device("cpu")))
        step.form.method = Told()
        step.form.parts = parts_of(step.form.method, step.form.run)
        return Planner(step, updates_of(job)).plan()

    ask.d = layout.part("model").numel  # type: ignore[attr-defined]
    return ask


def _answer(folder: Path, node: str, phase: int, content: bytes | None, verdict: Any = "received") -> StepAnswer:
    if content is None:
        return StepAnswer(node, 0.0, {}, phase=phase, verdict="lost", reason="gone")
    path = folder / f"{node}-{phase}"
    path.write_bytes(content)
    reason = "evicted" if verdict == "rejected" else ""
    parts = {"word" if phase == 1 else "model": path}
    return StepAnswer(node, 1.0, parts, phase=phase, verdict=verdict, reason=reason)


A, B = ("a", 1, b"one"), ("b", 1, b"two")


def test_a_phase_is_opened_for_those_that_the_method_names(ask: Any) -> None:
    assert ask(Open(2, {"b": '{"x":1}'}, {"a": "no"}), A, B) == OpenedPhase(2, {"b": '{"x":1}'}, {"a": "no"})
    [(phase, answers, context)] = Told.seen
    assert phase == 1
    assert [(answer.node, answer.parts["word"]) for answer in answers] == [("a", b"one"), ("b", b"two")]
    assert context.roster == ("a", "b", "c")


def test_the_model_is_opened_and_can_be_measured_on_central_data(ask: Any) -> None:
    step = torch.full((ask.d,), 0.5)
    assert ask(Close(("a",)), A, B, ("a", 2, step.numpy().tobytes()), ("b", 2, None)) == Close(("a",))
    [(_, answers, context)] = Told.seen
    opened = next(answer for answer in answers if answer.phase == 2 and answer.verdict == "received")
    assert torch.equal(opened.parts["model"].read(slice(0, ask.d)), step)
    assert [answer.reason for answer in answers if answer.verdict == "lost"] == ["gone"]
    unmoved, moved = context.audit(None), context.audit(opened.parts["model"])
    assert unmoved == context.audit(None) != moved
    assert set(moved) == {"loss", "accuracy"}


def test_what_cannot_be_opened_is_rejected_in_every_phase(ask: Any) -> None:
    spoilt = torch.full((ask.d,), float("nan")).numpy().tobytes()
    plan = ask(Close(()), A, B, ("a", 2, spoilt))
    assert plan == Close((), {"a": "non-finite"})
    [(_, answers, _)] = Told.seen
    assert [(answer.node, answer.verdict) for answer in answers] == [
        ("a", "rejected"),
        ("b", "received"),
        ("a", "rejected"),
    ]
    assert ask(Close(()), ("a", 1, b"longer than it may be"), B) == Close((), {"a": "more than 8 bytes of word"})


@pytest.mark.parametrize("phase", [1, 2])
def test_a_node_that_was_rejected_in_one_phase_is_so_in_all(ask: Any, phase: int) -> None:
    step = torch.zeros(ask.d).numpy().tobytes()
    given: list[tuple[Any, ...]] = [("a", 1, b"one"), B, ("a", 2, step)]
    given = [(*answer, "rejected") if answer[:2] == ("a", phase) else answer for answer in given]
    assert ask(Open(2, {"b": ""}), *given) == OpenedPhase(2, {"b": ""}, {"a": "evicted"})
    [(_, answers, _)] = Told.seen
    shown = [(answer.node, answer.verdict, dict(answer.parts)) for answer in answers]
    assert shown == [("a", "rejected", {}), ("b", "received", {"word": b"two"}), ("a", "rejected", {})]
    with pytest.raises(RunFailed, match="closes the round with a,"):
        ask(Close(("a",)), *given)


def test_a_node_that_was_rejected_before_is_not_rejected_again(ask: Any) -> None:
    assert ask(Open(2, {"b": ""}), (*A, "rejected"), B) == OpenedPhase(2, {"b": ""}, {})


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (Open(1, {"a": ""}), "opens phase 1 after phase 1, and has 2"),
        (Open(3, {"a": ""}), "opens phase 3"),
        (Open(2, {}), r"asks \[\] in phase 2"),
        (Open(2, {"c": ""}), r"asks \['c'\] in phase 2, and only \['a', 'b'\] can be"),
        (Open(2, {"a": ""}, {"a": "no"}), r"only \['b'\] can be"),
        (Open(2, {"a": "{"}), "asks with what is not JSON"),
        (Close(("a",)), "closes the round with a, which did not send every part"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_the_method_s_mistake(ask: Any, plan: Open | Close, text: str) -> None:
    with pytest.raises(RunFailed, match=f"method 'none' .*{text}.*; this is a mistake in the method"):
        ask(plan, A, B)


def test_a_node_is_asked_once_in_a_phase(ask: Any) -> None:
    with pytest.raises(RunFailed, match=r"asks \['b'\] in phase 2, and only \['a'\] can be"):
        ask(Open(2, {"b": ""}), A, B, ("b", 2, None))
