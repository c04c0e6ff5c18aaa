from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from covey.artifact import artifact_of
from covey.errors import SpecError
from covey.node.assignments.record.local_state import RunStates
from covey.node.updates import FinishedUpdate
from covey.testing.method_rounds import MethodRounds, spec_of
from tests.unit.methods.naive import batches, first_model

NODES, ROUNDS, ALPHA = 3, 3, 2.0
PLAIN = {"task": {"name": "covey.testing.method_rounds:PlainExample"}, "weights": {"by": "equal"}}
States = list[dict[str, Tensor]]


def naive(run: MethodRounds, *, shares_model: bool) -> tuple[Tensor, States]:
    """The authors' loop, written out: the mean logits after the last round, and the nodes' models (or the mean)."""
    model = first_model(run.spec)
    states: States = [{n: v.clone() for n, v in model.state_dict().items()} for _ in range(NODES)]
    sums, counts = torch.zeros(NODES, 2, 2), torch.ones(NODES, 2)
    target: Tensor | None = None
    for number in range(1, ROUNDS + 1):
        for index in range(NODES):
            model.load_state_dict(states[index])
            optimizer = torch.optim.SGD(model.parameters(), lr=run.spec.training.learning_rate)
            for x, y in batches(run.spec, index, NODES, number):
                logits = model(x)
                for row, label in zip(logits.detach(), y.tolist(), strict=True):
                    sums[index, label] += row
                    counts[index, label] += 1
                loss = functional.cross_entropy(logits, y)
                if target is not None:
                    q = functional.softmax(target[y], 1)
                    loss = loss + ALPHA * (q * (q.log() - functional.log_softmax(logits, 1))).sum(1).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            states[index] = {n: v.clone() for n, v in model.state_dict().items()}
        target = (sums / counts[:, :, None]).mean(0)
        if shares_model:
            mean = {n: torch.stack([state[n] for state in states]).mean(0) for n in states[0]}
            states = [dict(mean) for _ in range(NODES)]
    assert target is not None
    return target, states


def vector(path: Path) -> Tensor:
    return torch.from_numpy(np.fromfile(path, "<f4"))


def flat(state: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.reshape(-1) for value in state.values()])


@pytest.mark.parametrize("name", ["feddistill", "feddistill-plus"])
def test_rounds_are_those_of_the_authors_code(tmp_path: Path, name: str) -> None:
    run = MethodRounds(spec_of(name, {"alpha": ALPHA}, **PLAIN), tmp_path, NODES)
    first = run.model_sha256
    for _ in range(ROUNDS):
        run.round()
    target, states = naive(run, shares_model=name == "feddistill-plus")
    torch.testing.assert_close(vector(run.version_state["method/logits"]).view(2, 2), target, rtol=1e-3, atol=1e-4)
    if name == "feddistill-plus":
        torch.testing.assert_close(flat(run.tensors()), flat(states[0]), rtol=1e-3, atol=1e-4)
        return
    assert run.model_sha256 == first, "no model travels"
    for node, state in zip(run.nodes.values(), states, strict=True):
        torch.testing.assert_close(vector(node.own["method/member"]), flat(state), rtol=1e-3, atol=1e-4)


def test_nothing_but_logits_travels(tmp_path: Path) -> None:
    run = MethodRounds(spec_of("feddistill"), tmp_path, NODES)
    assert [(p.name, p.size_bytes) for p in run.description.parts if p.up is not None] == [("logits", 16)]
    assert not run.description.global_model


def test_a_single_gradient_is_refused(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"exchange": {"payload": "gradient"}, "training": {"local_steps": 1}}
    with pytest.raises(SpecError, match=r'exchange\.payload: "feddistill-plus" guides local training'):
        MethodRounds(spec_of("feddistill-plus", **sections), tmp_path, NODES)


def test_of_a_model_of_its_own_a_node_keeps_nothing_once_the_run_has_ended(tmp_path: Path) -> None:
    """Its buffers are of use to nothing else: an evaluation puts what stayed together with a global model."""
    for name, kept in (("feddistill", "method/local-alone"), ("fedbn", "method/local")):
        run = MethodRounds(spec_of(name), tmp_path / name, 1)
        run.round()
        own = run.nodes["n0"].own
        assert (kept in own, len({"method/local", "method/local-alone"} & own.keys())) == (True, 1)
        states, update = RunStates(), FinishedUpdate("run", 1, "base", "u1", b"s", b"s", ())
        states.stage(update, {}, {slot: artifact_of([slot.encode()]) for slot in own})
        states.forget("run")
        assert set(states.own_state("run")) == own.keys() & {"method/local"}
        # A run that an earlier version began goes on from what that one kept.
        first = run.train("n0", 2, attempt="now", state=run.nodes["n0"].own)
        renamed = {"method/local" if slot == kept else slot: path for slot, path in own.items()}
        again = run.train("n0", 2, attempt="before", state=renamed)
        assert [file.artifact for file in first.own_state] == [file.artifact for file in again.own_state]
