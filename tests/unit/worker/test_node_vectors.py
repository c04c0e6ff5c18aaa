"""A gossip node's vectors in the worker: what a job writes, what the next one reads, and bodies that are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from covey.artifact import artifact_of_file
from covey.learning.models.state import layout_of, map_behind, write_model
from covey.spec import parse_data
from covey.worker.execute.mix_op import learning_rate_at, mix
from covey.worker.files.mapped import MappedModel
from covey.worker.jobs.mixtures import MixJob, MixResult, Portion

HOST: Any = None  # mixing asks nothing of it
D = 6


class Small(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((D,), value))


LAYOUT = layout_of(Small(0.0))


def spec_json(**gossip: Any) -> str:
    schedule = {"learning_rate": {"kind": "step", "factor": 0.5, "every": 2}}
    training = {"learning_rate": 0.5, "schedule": schedule}
    fields = {"name": "run", "mode": "gossip", "task": {"name": "digits"}, "training": training, "gossip": gossip}
    return parse_data(fields).to_json()


class Node:
    """One node's files, and its jobs one after the other."""

    def __init__(self, folder: Path, value: float = 0.0, **gossip: Any) -> None:
        self.folder, self.spec, self.number = folder, spec_json(**gossip), 0
        folder.mkdir()
        self.model, self.kept = folder / "first", None
        write_model(self.model, LAYOUT, Small(value))

    def do(self, **job: Any) -> MixResult:
        self.number += 1
        out, out_kept = self.folder / f"{self.number}", self.folder / f"{self.number}-kept"
        plain = MixJob(LAYOUT.to_json(), self.model, out, spec_json=self.spec, kept=self.kept, out_kept=out_kept)
        result = mix(replace(plain, **job), HOST)
        assert result.artifact == artifact_of_file(out)
        self.model = out
        if result.kept is not None:
            assert result.kept == artifact_of_file(out_kept)
            self.kept = out_kept  # type: ignore[assignment]
        return result

    def train(self, step: int, gradient: float, **job: Any) -> MixResult:
        rate = learning_rate_at(parse_of(self.spec), step)
        change = self.folder / "change"
        np.full(D, -rate * gradient, np.float32).tofile(change)
        return self.do(step=step, applies=True, change=change, **job)

    @property
    def values(self) -> list[float]:
        return [float(x) for x in MappedModel(self.model, LAYOUT).read(slice(0, D))]

    @property
    def travelling(self) -> list[float]:
        return [float(vector[0]) for vector in map_behind(self.model, LAYOUT).vectors]

    @property
    def keeps(self) -> list[float]:
        assert self.kept is not None
        return [float(x) for x in np.fromfile(self.kept, np.float32)[::D]]


def parse_of(text: str) -> Any:
    from covey.spec import parse_json

    return parse_json(text)


def test_the_learning_rate_is_that_of_the_step(tmp_path: Path) -> None:
    spec = parse_of(spec_json(steps=6))
    assert [learning_rate_at(spec, step) for step in range(5)] == [0.5, 0.5, 0.25, 0.25, 0.125]


def test_a_momentum_stays_from_job_to_job(tmp_path: Path) -> None:
    node = Node(tmp_path / "a", momentum="local", momentum_beta=0.5)
    node.train(0, 1.0)
    assert (node.values[0], node.keeps) == (-0.5, [1.0])
    node.train(1, 1.0)
    assert (node.values[0], node.keeps) == (-0.5 - 0.5 * 1.5, [1.5])
    node.train(2, 0.0)  # half the rate, and the momentum acts at that
    assert (node.values[0], node.keeps) == (-1.25 - 0.25 * 0.75, [0.75])
    assert node.do(applies=True).kept is None  # no training: all is as it was
    assert node.keeps == [0.75]


def test_two_nodes_follow_one_tracker(tmp_path: Path) -> None:
    a, b = (Node(tmp_path / name, protocol="gradient-tracking") for name in "ab")
    a.train(0, 2.0)
    b.train(0, 4.0)
    assert (a.travelling, b.travelling, a.keeps, b.keeps) == ([2.0], [4.0], [2.0], [4.0])
    body = a.model
    a.do(portions=(Portion(b.model, 0.5),))
    b.do(portions=(Portion(body, 0.5),))
    assert a.travelling == b.travelling == [3.0]
    assert a.values == b.values == [-1.5] * D
    a.train(1, 3.0)
    assert (a.travelling, a.keeps, a.values[0]) == ([3.0 + 3.0 - 2.0], [3.0], -1.5 - 0.5 * 4.0)


def test_a_pair_steps_together_and_a_node_alone_by_itself(tmp_path: Path) -> None:
    gossip = {
        "protocol": {"name": "noloco", "options": {"momentum": 0.5, "rate": 1.0, "pull": 0.5}},
        "topology": {"name": "matching"},
    }
    a, b = Node(tmp_path / "a", 0.0, **gossip), Node(tmp_path / "b", 4.0, **gossip)
    for node, gradient in ((a, 2.0), (b, -2.0)):
        before = node.values
        node.train(0, gradient)
        assert node.values == before
    body = a.model
    a.do(portions=(Portion(b.model, 0.5),))
    b.do(portions=(Portion(body, 0.5),))
    assert (a.values[0], b.values[0]) == (1.0, 3.0)  # the means of what training did are 0: only the pull
    a.train(1, 2.0)
    a.do()
    assert a.values[0] == 1.0 + 0.5 * 1.0 - 1.0


def test_in_float32_trackers_sum_up_to_gradients_to_a_hundred_thousandth(tmp_path: Path) -> None:
    n, matrix = 3, np.array([[0.5, 0.0, 0.25], [0.25, 0.5, 0.0], [0.25, 0.5, 0.75]])  # columns sum to 1, rows do not
    nodes = [Node(tmp_path / str(i), float(i), protocol="gradient-tracking", steps=1000) for i in range(n)]
    weights = np.ones(n)
    for _ in range(25):
        for i, node in enumerate(nodes):
            node.train(0, (1.0 + i) * (node.values[0] - 10.0 * i), weight=float(weights[i]))
        trackers = sum(weight * node.travelling[0] for weight, node in zip(weights, nodes, strict=True))
        gradients = [node.keeps[0] for node in nodes]
        assert abs(trackers - sum(gradients)) <= 1e-5 * sum(map(abs, gradients))
        given, bodies = matrix * weights, [node.model for node in nodes]
        weights = given.sum(1)
        for i, node in enumerate(nodes):
            others = [k for k in range(n) if k != i and given[i, k]]
            portions = tuple(Portion(bodies[k], float(given[i, k] / weights[i])) for k in others)
            node.do(portions=portions, weight=float(weights[i]))
    assert weights.max() > 1.5 * weights.min()


def test_who_takes_a_model_over_before_it_begins_takes_no_vectors(tmp_path: Path) -> None:
    a, b = (Node(tmp_path / name, value, protocol="gradient-tracking") for name, value in (("a", 0.0), ("b", 4.0)))
    b.train(0, 0.0)
    a.do(spec_json="", portions=(Portion(b.model, 1.0),))
    assert (a.values, a.travelling, a.kept) == ([4.0] * D, [], None)


@pytest.mark.parametrize("wrong", ["nan", "none", "two", "stamp"])
def test_a_body_whose_vectors_are_none_costs_its_sender_its_own_influence_only(tmp_path: Path, wrong: str) -> None:
    a, b = (Node(tmp_path / name, protocol="gradient-tracking") for name in "ab")
    a.train(0, 2.0)
    b.train(0, 4.0)
    body = bytearray(b.model.read_bytes())
    if wrong == "nan":
        body[-4:] = np.float32(np.nan).tobytes()
    elif wrong == "none":
        body = bytearray((tmp_path / "b" / "first").read_bytes())
    elif wrong == "two":
        body += body[-4 * D :]
    else:
        body[LAYOUT.stamp_at : LAYOUT.stamp_at + 8] = b"\xff" * 8
    (tmp_path / "wrong").write_bytes(body)
    before = a.values, a.travelling
    result = a.do(portions=(Portion(tmp_path / "wrong", 0.5),))
    assert result.refused == (0,)
    assert (a.values, a.travelling) == before
