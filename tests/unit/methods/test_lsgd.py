"""Leader SGD: the pull against plain loops, who leads, and what a liar comes to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from covey.errors import SpecError, TaskError
from covey.layout import Layout
from covey.learning.common import drawn
from covey.learning.tasks.digits import Digits
from covey.methods.contract import Answer, Close, Open, PlanContext, RunForm
from covey.methods.lsgd import Lsgd, _loss
from covey.testing.method_rounds import MethodRounds, examples, spec_of
from covey.vectors import TensorVector, Vector
from covey.worker.jobs.training import TrainResult
from tests.unit.methods.naive import State, first_model, trained

NODES = 4
PLAIN = {"task": {"name": "covey.testing.method_rounds:PlainExample"}}
DIGITS = {
    "task": {"name": "digits", "options": {"common": 200}},
    "training": {"learning_rate": 0.1, "batch_size": 32, "local_steps": 12},
}
GRADIENT = {"exchange": {"payload": "gradient"}, "training": {"local_steps": 1}}


def common_loss(state: State, spec: Any, number: int) -> float:
    x, y = (tensor[drawn(20, 20, spec.seed, "bids", number)] for tensor in examples(20, 3).tensors)
    model = first_model(spec)
    model.load_state_dict(state)
    return functional.cross_entropy(model(x), y).item()


def flat(state: State) -> Tensor:
    return torch.cat([value.reshape(-1) for value in state.values()])


def moved(state: State, to: State, share: float) -> State:
    return {name: value + share * (to[name] - value) for name, value in state.items()}


@pytest.mark.parametrize("groups", [1, 2])
def test_rounds_are_those_of_the_paper_s_algorithm(tmp_path: Path, groups: int) -> None:
    options = {"groups": groups, "pull": 0.3, "global_pull": 0.2, "global_every": 2}
    spec = spec_of("lsgd", options, **PLAIN)
    run = MethodRounds(spec, tmp_path, NODES)
    first = {name: value.clone() for name, value in first_model(spec).state_dict().items()}
    own, leaders, best = [first] * NODES, [first] * groups, first
    for number in range(1, 4):
        result = run.round()
        for i in range(NODES):
            x = moved(own[i], leaders[i % groups], 0.3)
            x = moved(x, best, 0.2) if groups > 1 and number in (1, 3) else x
            own[i], _ = trained(spec, x, i, NODES, number)
        losses = [common_loss(state, spec, number) for state in own]
        chosen = [min(range(g, NODES, groups), key=losses.__getitem__) for g in range(groups)]
        leaders, leader = [own[i] for i in chosen], min(chosen, key=losses.__getitem__)
        best = own[leader]
        assert [v.node for v in result.verdicts if v.share] == [f"n{leader}"]
    for i, state in enumerate(own):
        kept = np.fromfile(run.nodes[f"n{i}"].own["method/own"], "<f4")
        torch.testing.assert_close(torch.from_numpy(kept), flat(state), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run.tensors(), best, rtol=1e-4, atol=1e-5)
    if groups > 1:
        table = torch.from_numpy(np.fromfile(run.version_state["method/leaders"], "<f4")).view(groups, -1)
        torch.testing.assert_close(table, torch.stack([flat(state) for state in leaders]), rtol=1e-4, atol=1e-5)


def test_without_a_pull_nodes_train_alone_and_a_pull_at_each_step_is_one(tmp_path: Path) -> None:
    alone, pulled = (
        MethodRounds(spec_of("lsgd", {"pull": 0.0, "step_pull": pull}, **PLAIN), tmp_path / str(pull), NODES)
        for pull in (0.0, 0.2)
    )
    spec = alone.spec
    state: State = {name: value.clone() for name, value in first_model(spec).state_dict().items()}
    spread = []
    for run in (alone, pulled):
        for _ in range(3):
            run.round()
        kept = [np.fromfile(node.own["method/own"], "<f4") for node in run.nodes.values()]
        spread.append(np.std(kept, axis=0).sum())
    for number in range(1, 4):
        state, _ = trained(spec, state, 2, NODES, number)
    own = torch.from_numpy(np.fromfile(alone.nodes["n2"].own["method/own"], "<f4"))
    torch.testing.assert_close(own, flat(state), rtol=1e-4, atol=1e-5)
    assert spread[1] < spread[0]


def test_nodes_explore_rates_that_are_dealt_within_their_groups(tmp_path: Path) -> None:
    """Of two groups, n0 and n1 begin theirs, so both have the first rate."""
    options = {"groups": 2, "pull": 0.0, "global_pull": 0.0, "rates": [1.0, 4.0]}
    spec = spec_of("lsgd", options, **PLAIN)
    run = MethodRounds(spec, tmp_path, NODES)
    run.round()
    first = {name: value.clone() for name, value in first_model(spec).state_dict().items()}
    for i, rate in enumerate((1.0, 1.0, 4.0, 4.0)):
        training = spec.training.model_copy(update={"learning_rate": rate * spec.training.learning_rate})
        expected, _ = trained(spec.model_copy(update={"training": training}), first, i, NODES, 1)
        kept = np.fromfile(run.nodes[f"n{i}"].own["method/own"], "<f4")
        torch.testing.assert_close(torch.from_numpy(kept), flat(expected), rtol=1e-4, atol=1e-5)
    for wrong in ([0.0], [-1.0], ["fast"]):
        with pytest.raises(SpecError, match=r"method\.options\.rates"):
            Lsgd({"rates": wrong})


class Lying(MethodRounds):
    """The last node bids 0, and sends random weights if it is asked."""

    def train(self, node: str, number: int = 1, attempt: str = "", **fields: Any) -> TrainResult:
        result = super().train(node, number, attempt, **fields)
        if node == self.names[-1]:
            files = {part.name: part.path for part in result.parts}
            files["bid"].write_bytes(b"0.0")
            size = files["model"].stat().st_size // 4
            np.random.default_rng(number).normal(0, 1, size).astype("<f4").tofile(files["model"])
        return result


def test_one_liar_leads_all_astray_and_an_audit_stops_it(tmp_path: Path) -> None:
    """The figure of the literature's toy: a bid of 0 with random weights, and the same with audited leaders."""
    accuracy = {}
    options: dict[str, dict[str, Any]] = {"honest": {}, "lied to": {}}
    options |= {"audited": {"audit": True}, "measured": {"bids": "central"}}
    for name, chosen in options.items():
        kind = MethodRounds if name == "honest" else Lying
        run = kind(spec_of("lsgd", chosen, **DIGITS), tmp_path / name, NODES)
        for _ in range(5):
            result = run.round()
        liar = result.verdicts[-1]
        if name == "audited":
            assert (liar.verdict, liar.share) == ("rejected", 0.0)
            assert "it bid 0.000, and the audit measures" in liar.reason
        x, y = Digits().central_data().tensors
        hidden = torch.relu(x @ run.tensors()["0.weight"].T + run.tensors()["0.bias"])
        predicted = (hidden @ run.tensors()["2.weight"].T + run.tensors()["2.bias"]).argmax(1)
        accuracy[name] = (predicted == y).float().mean().item()
    assert accuracy["lied to"] < 0.3
    assert min(accuracy["honest"], accuracy["audited"], accuracy["measured"]) > 0.6


ROSTER = ("a", "b", "c", "d")
VECTOR = TensorVector(torch.zeros(3))


def context(losses: Mapping[float, float] | None = None, before: float = 1.0) -> PlanContext:
    def audit(vector: Vector | None) -> Mapping[str, float]:
        return {"loss": before if vector is None else (losses or {})[vector.read(slice(0, 1)).item()]}

    form = RunForm(spec_of("lsgd"), Layout(()))
    return PlanContext(1, form, ROSTER, audit)


def bid(node: str, text: str) -> Answer:
    return Answer(node, 1, "received", parts={"bid": text.encode()})


def sent(node: str, first: float = 0.0) -> Answer:
    return Answer(node, 2, "received", parts={"model": TensorVector(torch.tensor([first, 0, 0]))})


def plan(options: dict[str, Any], answers: list[Answer], about: PlanContext | None = None) -> Open | Close:
    phase = max(answer.phase for answer in answers)
    return Lsgd(options).plan(phase, answers, {}, about or context())


BIDS = [bid("a", "3"), bid("b", "2"), bid("c", "1"), bid("d", "2")]


def test_one_model_is_asked_for_in_each_group() -> None:
    assert plan({}, BIDS) == Open(2, {"c": ""})
    assert plan({"groups": 2}, BIDS) == Open(2, {"c": "", "b": ""})
    assert plan({"groups": 4}, BIDS) == Open(2, dict.fromkeys(ROSTER, ""))
    assert plan({"bids": "central"}, BIDS) == Open(2, dict.fromkeys(ROSTER, ""))


def test_of_equal_bids_the_first_in_the_roster_leads_and_what_is_no_number_is_rejected() -> None:
    opened = plan({}, [bid("a", "nan"), bid("b", "2"), bid("c", "one"), bid("d", "2.0")])
    assert opened == Open(2, {"b": ""}, dict.fromkeys("ac", "its bid is no finite number"))


def test_the_next_bidder_is_asked_for_what_does_not_come() -> None:
    assert plan({}, [*BIDS, Answer("c", 2, "lost")]) == Open(2, {"b": ""})
    assert plan({}, [*BIDS, Answer("c", 2, "lost"), sent("b")]) == Close(("b",), {}, {"b": "0"})
    none = [*BIDS, *(Answer(node, 2, "lost") for node in ROSTER)]
    assert plan({}, none) == Close(())


def test_the_best_of_the_leaders_is_followed_by_all() -> None:
    assert plan({"groups": 2}, [*BIDS, sent("b"), sent("c")]) == Close(("c",), {}, {"c": "0", "b": "1"})


def test_an_audited_leader_may_be_a_little_worse_than_it_said_or_better_than_the_one_before() -> None:
    answers, options = [*BIDS, sent("c", 7.0)], {"audit": True, "tolerance": 0.5}
    assert plan(options, answers, context({7.0: 1.5})) == Close(("c",), {}, {"c": "0"})
    assert plan(options, answers, context({7.0: 1.6}, before=1.6)) == Close(("c",), {}, {"c": "0"})
    lie = {"c": "it bid 1.000, and the audit measures 1.600"}
    assert plan(options, answers, context({7.0: 1.6}, before=1.5)) == Open(2, {"b": ""}, lie)
    assert isinstance(plan({"bids": "central"}, answers, context({7.0: math.nan})), Close)
    with pytest.raises(TaskError, match='a metric named "loss"'):
        _loss({"accuracy": 1.0})


def test_measured_models_are_compared_by_what_was_measured() -> None:
    answers = [*BIDS, sent("a", 1.0), sent("b", 2.0), sent("c", 3.0), Answer("d", 2, "lost")]
    closed = plan({"bids": "central", "groups": 2}, answers, context({1.0: 0.2, 2.0: 0.1, 3.0: 0.3}))
    assert closed == Close(("b",), {}, {"b": "1", "a": "0"})


@pytest.mark.parametrize(
    ("options", "sections", "text"),
    [
        ({}, GRADIENT, r"exchange\.payload: .*choose"),
        ({}, {"exchange": {"worker_momentum": 0.5}}, r"exchange\.worker_momentum: .*leave it out"),
        ({}, {"exchange": {"codec": "top-k"}}, r"exchange\.codec: what 'top-k' leaves out .*\"bf16\""),
        ({}, {"server_optimizer": {"name": "adam"}}, r"server_optimizer\.name: .*learning_rate = 1"),
        ({}, {"aggregation": {"name": "krum", "options": {"f": 1}}}, r"aggregation\.name: a rule would see one update"),
        ({}, {"aggregation": {"name": "median"}}, r"method\.options\.audit: 'median' assumes .*write audit = true"),
        ({"audit": True}, {"exchange": {"local": ["2.*"]}}, r"method\.options\.audit: .*lacks what stays on the nodes"),
        ({"bids": "own"}, {"data": {"partition": "dirichlet"}}, r"method\.options\.bids: .*easiest ones; choose"),
        ({}, {"task": {"name": "digits"}}, r"method\.options\.bids: task 'digits' has no examples that all nodes have"),
        (
            {"audit": True},
            {"task": {"name": "synthetic"}},
            r"method\.options\.audit: leaders are measured on central data, and task 'synthetic' has none here",
        ),
    ],
)
def test_what_it_cannot_work_with_is_refused(tmp_path: Path, options: Any, sections: Any, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        MethodRounds(spec_of("lsgd", options, **{**PLAIN, **sections}), tmp_path, NODES)


def test_what_it_can_work_with(tmp_path: Path) -> None:
    for name, options, sections in (
        ("robust", {"audit": True}, {"aggregation": {"name": "median"}}),
        ("own", {"bids": "own", "window": 3}, {"exchange": {"codec": "bf16"}}),
    ):
        run = MethodRounds(spec_of("lsgd", options, **PLAIN, **sections), tmp_path / name, NODES)
        run.round()
        assert sum(verdict.share for verdict in run.round().verdicts) == 1
