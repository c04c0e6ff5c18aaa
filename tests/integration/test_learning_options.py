"""What a specification can choose for the learning, through real daemons, against plain single-process PyTorch."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from covey.learning.partition import part_of
from covey.learning.task import NodeData
from covey.learning.tasks.digits import Digits
from covey.seeds import derive_seed
from covey.spec import DataSection
from covey.testing.federation import Federation
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

DATA = Path(os.environ.get("COVEY_DATA") or Path(__file__).parents[3] / "shared" / "data").resolve()
NODES, EXAMPLES, BATCH, SEED = 3, 1437, 32, 7


def small():
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("learning"), NODES, env={"COVEY_DATA": str(DATA)}) as made:
        yield made.start()


def submit(federation, name, *, rounds=2, options="hidden = 16", min_nodes=NODES, extra="", **parts):
    keep = f"[keep]\nversions = {rounds + 1}"
    text = spec(
        name,
        options=options,
        rounds=rounds,
        min_nodes=min_nodes,
        seed=parts.pop("seed", SEED),
        extra=f"{extra}\n{keep}",
        **parts,
    )
    return federation.submit(text)


def complete(federation, run):
    """Wait for a run, in which every node took part in every round."""
    shown = federation.wait(run)
    assert all(r["accepted"] == NODES for r in federation.rounds(run))
    return shown


def export(federation, run, path, version="newest"):
    where = ["--version", version, "--data-dir", federation.coordinator_dir]
    federation.cli("run", "export", run, "--to", path, *where)
    return load_file(path)


def twice(federation, name, **settings):
    """Two equal runs: the second run and the hash that both have."""
    runs = [submit(federation, f"{name}-{i}", **settings) for i in range(2)]
    first, second = (complete(federation, run)["model_sha256"] for run in runs)
    assert first == second
    return runs[1], first


# -- the independent loop


def first_weights(make=small, seed=SEED):
    torch.manual_seed(derive_seed(seed, "model"))
    return clone(make().state_dict())


def clone(state):
    return {name: value.clone() for name, value in state.items()}


def shards(section=None, seed=SEED):
    task = Digits({})
    dataset = task.train_data(NodeData())
    return [part_of(task, dataset, section or DataSection(), k, NODES, seed) for k in range(NODES)]


def batch_order(shard, number, k, seed=SEED):
    generator = torch.Generator().manual_seed(derive_seed(seed, "batches", number, k))
    return shard[torch.randperm(len(shard), generator=generator)]


def train_locally(model, order, optimizer, *, clip_norm=None, bf16=False):
    x, y = Digits({}).train_data(NodeData()).tensors
    for batch in order.split(BATCH):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()


def sgd(parameters, number):
    return torch.optim.SGD(parameters, lr=0.1)


def simulate(rounds, *, make=small, section=None, local=sgd, server=None, seed=SEED, **training):
    """The whole federation as nested loops: weights by examples, and a server step on the mean of the weights."""
    weights, parts = first_weights(make, seed), shards(section, seed)
    for number in range(1, rounds + 1):
        states = []
        for k, part in enumerate(parts):
            model = make()
            model.load_state_dict(weights)
            train_locally(model, batch_order(part, number, k, seed), local(model.parameters(), number), **training)
            states.append(model.state_dict())
        mean = weighted_mean(states, [len(part) for part in parts])
        weights = mean if server is None else {name: server(name, weights[name], mean[name]) for name in mean}
    return weights


def weighted_mean(states, counts):
    means = {}
    for name, value in states[0].items():
        mean = sum(n / sum(counts) * state[name].double() for n, state in zip(counts, states, strict=True))
        means[name] = (mean if value.is_floating_point() else mean.round()).to(value.dtype)
    return means


def assert_same(found, expected, rtol=1e-4, atol=1e-5):
    assert set(found) == set(expected)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)  # names the one that differs


# -- server optimizers


class TorchServer:
    """A `torch.optim` optimizer whose gradient is base minus mean: the field's pseudo-gradient."""

    def __init__(self, make):
        self._make, self._known = make, {}

    def __call__(self, name, base, mean):
        if name not in self._known:
            parameter = base.clone().requires_grad_()
            self._known[name] = parameter, self._make([parameter])
        parameter, optimizer = self._known[name]
        parameter.grad = base - mean
        optimizer.step()
        return parameter.detach().clone()


class PaperServer:
    """FedOpt's Algorithm 2 (Reddi et al. 2021), in float64 numpy."""

    def __init__(self, second, *, rate, beta1, tau=1e-3):
        self._second, self._rate, self._beta1, self._tau = second, rate, beta1, tau
        self._m, self._v = {}, {}

    def __call__(self, name, base, mean):
        x, delta = base.double().numpy(), (mean - base).double().numpy()
        m = self._beta1 * self._m.get(name, 0.0) + (1 - self._beta1) * delta
        v = self._second(self._v.get(name, np.full_like(x, self._tau**2)), delta**2)
        self._m[name], self._v[name] = m, v
        return torch.from_numpy(x + self._rate * m / (np.sqrt(v) + self._tau)).float()


SERVERS = {
    "momentum": ("momentum = 0.8", lambda: TorchServer(lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.8))),
    "nesterov": (
        "learning_rate = 0.6",
        lambda: TorchServer(lambda p: torch.optim.SGD(p, lr=0.6, momentum=0.9, nesterov=True)),
    ),
    "adam": ("", lambda: PaperServer(lambda v, d2: 0.99 * v + 0.01 * d2, rate=0.01, beta1=0.9)),
    "yogi": ("", lambda: PaperServer(lambda v, d2: v - 0.01 * d2 * np.sign(v - d2), rate=0.01, beta1=0.9)),
    "adagrad": ("learning_rate = 0.05", lambda: PaperServer(lambda v, d2: v + d2, rate=0.05, beta1=0.0)),
}


def server_section(name):
    return f'[server_optimizer]\nname = "{name}"\n[server_optimizer.options]\n{SERVERS[name][0]}'


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_a_server_optimizer_is_that_of_the_textbook(federation, tmp_path, name):
    run = submit(federation, f"server-{name}", rounds=3, extra=server_section(name))
    complete(federation, run)
    assert_same(export(federation, run, tmp_path / "v0.safetensors", "0"), first_weights(), rtol=0, atol=0)
    expected = simulate(3, server=SERVERS[name][1]())
    plain = simulate(3)
    assert any((expected[tensor] - plain[tensor]).abs().max() > 1e-3 for tensor in plain)
    assert_same(export(federation, run, tmp_path / "model.safetensors"), expected)


def test_the_state_of_adam_survives_the_death_of_the_coordinator(federation):
    settings = {"rounds": 3, "extra": server_section("adam")}
    undisturbed = complete(federation, submit(federation, "adam-undisturbed", **settings))
    federation.stop_coordinator()
    federation.start_coordinator(env={"COVEY_FAULTS": "before-commit:2"})
    federation.wait_connected(NODES)
    run = submit(federation, "adam-killed", **settings)
    assert federation.coordinator.wait(60) == -9
    federation.start_coordinator()
    assert complete(federation, run)["model_sha256"] == undisturbed["model_sha256"]
    federation.wait_connected(NODES)


# -- what is exchanged


def test_parameters_and_deltas_give_the_same_model(federation, tmp_path):
    found = {}
    for payload in ("parameters", "delta"):
        run = submit(federation, f"payload-{payload}", extra=f'[exchange]\npayload = "{payload}"')
        complete(federation, run)
        found[payload] = export(federation, run, tmp_path / f"{payload}.safetensors")
    assert_same(found["parameters"], found["delta"])
    assert_same(found["parameters"], simulate(2))


def test_gradients_are_one_step_of_distributed_sgd(federation, tmp_path):
    """Equal parts and batches: the step of one process on the batches of all nodes together."""
    extra = '[exchange]\npayload = "gradient"\n[server_optimizer]\nname = "sgd"\noptions.learning_rate = 0.5'
    run = submit(federation, "payload-gradient", training="local_steps = 1", extra=extra)
    complete(federation, run)
    parts, model = shards(), small()
    assert [len(part) for part in parts] == [EXAMPLES // NODES] * NODES
    model.load_state_dict(first_weights())
    for number in (1, 2):
        batch = torch.cat([batch_order(part, number, k)[:BATCH] for k, part in enumerate(parts)])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        x, y = Digits({}).train_data(NodeData()).tensors
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert_same(export(federation, run, tmp_path / "model.safetensors"), model.state_dict(), atol=1e-6)


# -- local training


def momentum_falling(parameters, number):
    return torch.optim.SGD(parameters, lr=0.05 * 0.5 ** (number - 1), momentum=0.8, nesterov=True, weight_decay=0.01)


TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
    "adamw": (
        'optimizer = "adamw"\nweight_decay = 0.05\nschedule.learning_rate = {kind = "constant", factor = 0.05}',
        {"local": lambda p, number: torch.optim.AdamW(p, lr=0.005, weight_decay=0.05)},
    ),
    "momentum": (
        'optimizer = "momentum"\nmomentum = 0.8',
        {"local": lambda p, number: torch.optim.SGD(p, lr=0.1, momentum=0.8)},
    ),
    "schedule": (
        'schedule.learning_rate = {kind = "step", factor = 0.1}',
        {"local": lambda p, number: torch.optim.SGD(p, lr=0.1 * 0.1 ** (number - 1))},
    ),
    "clip-norm": ("clip_norm = 0.05", {"clip_norm": 0.05}),
    "bf16": ('precision = "bf16"', {"bf16": True}),
}


@pytest.fixture(scope="module")
def plain(federation):
    """The model of the run that sets none of this."""
    return complete(federation, submit(federation, "plain"))["model_sha256"]


@pytest.mark.parametrize("name", sorted(TRAININGS))
def test_local_training_is_that_of_plain_pytorch_and_repeats(federation, tmp_path, plain, name):
    training, oracle = TRAININGS[name]
    run, sha256 = twice(federation, name, training=training)
    assert sha256 != plain
    # A rounding difference of float32 can turn the rounding of a bfloat16.
    tolerance = {"rtol": 1e-2, "atol": 2e-3} if name == "bf16" else {"atol": 1e-4}
    assert_same(export(federation, run, tmp_path / "model.safetensors"), simulate(2, **oracle), **tolerance)


# -- who gets what, who takes part


@pytest.mark.parametrize(
    ("section", "toml"),
    [
        (DataSection(partition="dirichlet", alpha=0.3), 'partition = "dirichlet"\nalpha = 0.3'),
        (DataSection(partition="shards", shards_per_node=3), 'partition = "shards"\nshards_per_node = 3'),
    ],
    ids=["dirichlet", "shards"],
)
def test_every_node_trains_on_its_own_part(federation, section, toml):
    run = submit(federation, f"part-{section.partition}", extra=f"[data]\n{toml}")
    complete(federation, run)
    parts = shards(section)
    assert sorted(torch.cat(parts).tolist()) == list(range(EXAMPLES))
    declared = {u["node"]: u["weight"] for u in federation.admin.round(run, 2)["updates"]}
    assert [declared[name] for name in federation.names] == [len(part) for part in parts]


def test_averaging_weighs_by_examples(federation, tmp_path):
    seed, section = 9, DataSection(partition="dirichlet", alpha=0.5)
    counts = [len(part) for part in shards(section, seed)]
    assert max(counts) / EXAMPLES > 0.5  # more than the default bound on a share would leave it
    extra = '[data]\npartition = "dirichlet"\nalpha = 0.5\n[weights]\nmax_share = 1.0'
    run = submit(federation, "weighted", extra=extra, seed=seed)
    complete(federation, run)
    shares = {u["node"]: u["share"] for u in federation.admin.round(run, 1)["updates"]}
    assert [shares[name] for name in federation.names] == pytest.approx([n / EXAMPLES for n in counts])
    assert_same(export(federation, run, tmp_path / "model.safetensors"), simulate(2, section=section, seed=seed))


def test_participants_are_drawn_from_the_seed(federation):
    policy = "participants = 1"
    drawn = {}
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        run = submit(federation, f"drawn-{name}", rounds=8, min_nodes=1, policy=policy, seed=seed)
        shown = federation.wait(run)
        rounds = federation.rounds(run)
        assert all(len(r["invited"]) == 1 and r["accepted"] == 1 for r in rounds)
        drawn[name] = SimpleNamespace(nodes=[r["invited"][0] for r in rounds], sha256=shown["model_sha256"])
    assert drawn["one"] == drawn["again"]
    assert drawn["one"].nodes != drawn["other"].nodes
    assert len(set(drawn["one"].nodes)) > 1


# -- the built-in tasks that need data


def require(file):
    if not (DATA / file).is_file():
        pytest.skip(f"no {file} in COVEY_DATA or ../shared/data")


def finite_loss(shown):
    assert shown["rounds_committed"] == 1
    loss = shown["metrics"]["loss"]
    assert math.isfinite(loss)
    return loss


def test_images_from_the_nodes_files(federation):
    require("mnist/train-images-idx3-ubyte.gz")
    require("mnist/t10k-images-idx3-ubyte.gz")
    settings = {"options": 'set = "mnist"\nhidden = 16', "training": "local_steps = 60"}
    shown = complete(federation, submit(federation, "images", task="idx-images", rounds=1, **settings))
    assert finite_loss(shown) < math.log(10)
    assert shown["metrics"]["accuracy"] > 0.4


def test_characters_by_speaker(federation):
    require("tinyshakespeare/input.txt")
    settings = {"options": "context = 16\nhidden = 16", "training": "local_steps = 60"}
    run = submit(federation, "text", task="characters", rounds=1, extra='[data]\npartition = "key"', **settings)
    symbols = 97
    assert finite_loss(complete(federation, run)) < math.log(symbols) - 0.2
    updates = federation.admin.round(run, 1)["updates"]
    assert len({u["weight"] for u in updates}) == NODES  # speakers do not say equally much
