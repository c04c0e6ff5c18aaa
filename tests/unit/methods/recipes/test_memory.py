from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from covey.errors import SpecError
from covey.testing.method_rounds import MethodRounds, spec_of
from tests.unit.methods.naive import first_model, mean, trained

NODES = 3
EQUAL = {"weights": {"by": "equal"}}
PLAIN = {"task": {"name": "covey.testing.method_rounds:PlainExample"}}
INVITED = [[0, 1, 2], [0, 2], [1, 2]]
BUFFER = "method/critical-gradients"


class NaiveBuffer:
    """Algorithm 1, with a list that is searched for its minimum."""

    def __init__(self, capacity: int, kappa: float, aggregate: str, decay: float) -> None:
        self.capacity, self.kappa, self.aggregate, self.decay = capacity, kappa, aggregate, decay
        self.kept: list[tuple[float, Tensor]] = []

    def __call__(self, model: nn.Module) -> None:
        parameters = list(model.parameters())
        g = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        memory = sum((old for _, old in self.kept), torch.zeros_like(g)) * self.kappa
        count = len(self.kept)
        joined = g + memory / max(1, count) if self.aggregate == "sum" else (g + memory) / (count + 1)
        if count < self.capacity:
            self.kept.append((float(g.norm()), g.clone()))
        else:
            place = min(range(count), key=lambda i: self.kept[i][0])
            if float(g.norm()) > self.kept[place][0]:
                self.kept[place] = (float(g.norm()), g.clone())
        self.kept = [(priority * self.decay, old) for priority, old in self.kept]
        for p, piece in zip(parameters, joined.split([p.numel() for p in parameters]), strict=True):
            p.grad = piece.view_as(p).clone()


@pytest.mark.parametrize(("aggregate", "kappa"), [("sum", 1.0), ("mean", 0.5)])
def test_steps_are_those_of_the_paper_s_algorithm_and_the_buffer_outlives_the_round(
    tmp_path: Path, aggregate: str, kappa: float
) -> None:
    options = {"capacity": 3, "kappa": kappa, "aggregate": aggregate, "decay": 0.9}
    run = MethodRounds(spec_of("memory", options, **EQUAL, **PLAIN), tmp_path, NODES)
    x = {name: value.clone() for name, value in first_model(run.spec).state_dict().items()}
    buffers = [NaiveBuffer(3, kappa, aggregate, 0.9) for _ in range(NODES)]
    for number, chosen in enumerate(INVITED, start=1):
        run.round([f"n{i}" for i in chosen])
        states = [trained(run.spec, x, i, NODES, number, correct=buffers[i])[0] for i in chosen]
        x = mean(states, [1 / len(chosen)] * len(chosen))
    for name, value in x.items():
        torch.testing.assert_close(run.tensors()[name], value, rtol=1e-3, atol=1e-5)
    for i, buffer in enumerate(buffers):
        flat = np.fromfile(run.nodes[f"n{i}"].accepted[BUFFER], "<f4")
        np.testing.assert_allclose(flat[:3], [priority for priority, _ in buffer.kept], rtol=1e-3)
        np.testing.assert_allclose(flat[3:].reshape(3, -1), [old for _, old in buffer.kept], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
def test_without_memory_every_step_is_that_of_the_optimizer_bit_for_bit(tmp_path: Path, optimizer: str) -> None:
    training = {"optimizer": optimizer, "learning_rate": 0.01, "batch_size": 8, "local_epochs": 1, "weight_decay": 0.01}
    kinds = {"none": ("none", {}), "kappa": ("memory", {"kappa": 0}), "capacity": ("memory", {"capacity": 0})}
    kinds["memory"] = ("memory", {})
    shas = {}
    for kind, (name, options) in kinds.items():
        run = MethodRounds(spec_of(name, options, training=training), tmp_path / kind, NODES)
        run.round()
        shas[kind] = run.round().model_sha256
        assert (BUFFER in run.nodes["n0"].accepted) == (kind == "memory")
    assert shas["none"] == shas["kappa"] == shas["capacity"] != shas["memory"]


def test_what_a_node_remembers_counts_once_its_update_was_accepted(tmp_path: Path) -> None:
    run = MethodRounds(spec_of("memory"), tmp_path, NODES)
    run.round()
    before = {name: node.accepted[BUFFER].read_bytes() for name, node in run.nodes.items()}
    run.round(spoilt=["n1"])
    assert [run.nodes[name].accepted[BUFFER].read_bytes() == before[name] for name in run.names] == [False, True, False]


def test_the_buffer_never_travels(tmp_path: Path) -> None:
    run = MethodRounds(spec_of("memory", {"capacity": 7}, **PLAIN), tmp_path, NODES)
    run.round()
    assert not run.version_state
    assert [part.name for part in run.train("n0", 2).parts] == ["model"]
    size = run.nodes["n0"].accepted[BUFFER].stat().st_size
    assert size == 4 * 7 * (8 * 6 + 6 + 6 * 2 + 2 + 1)
    (note,) = run.description.notes
    assert f"7 gradients are {size:,} bytes of a node's memory" in note


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"exchange": {"payload": "gradient"}, "training": {"local_steps": 1}}, r"exchange\.payload: .*\"delta\""),
        (
            {"exchange": {"local": ["3.*"]}, "training": {"local_steps": 3, "local_first": 1}},
            r"training\.local_first: .*leave it out",
        ),
        (
            {"mode": "async", "aggregation": {"name": "buffered"}, "rounds": {}, "async": {"updates": 3}},
            r'mode: method \'memory\' works in mode "rounds" only',
        ),
    ],
)
def test_what_it_cannot_work_with_is_refused(tmp_path: Path, sections, text) -> None:
    with pytest.raises(SpecError, match=text):
        MethodRounds(spec_of("memory", **sections), tmp_path, NODES)
