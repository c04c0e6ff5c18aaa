"""Codecs both ways, what nodes keep between updates, and rules with memory, on real daemons."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tomllib

import pytest
import torch
from safetensors.torch import load_file

from covey.codecs.dp_sign import DpSignOptions
from covey.learning.partition import part_of
from covey.learning.privacy import spent
from covey.learning.task import NodeData
from covey.learning.tasks.digits import Digits
from covey.learning.tasks.synthetic import SyntheticModel, tensor_sizes
from covey.seeds import derive_seed
from covey.spec import DataSection
from covey.testing.federation import Federation
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]
D = 64 * 64 + 64 + 64 * 10 + 10
ROUNDS = 4

CODECS = {
    "fp16": "",
    "bf16": "",
    "fp8": "",
    "int8": "",
    "int4": "",
    "qsgd": "",
    "terngrad": "",
    "dq-sgd": "",
    "top-k": "fraction = 0.1",
    "random-k": "fraction = 0.25",
    "scaled-sign": "",
}
WHOLE_DOWN = ("terngrad", "dq-sgd")
"""They may lose more of a change than there was."""
LEARNS = 0.45
"""Accuracy after the rounds; without learning it is 0.1."""


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("exchange"), nodes=3) as made:
        yield made.start()


def exchange(codec, options="", more="", rounds=ROUNDS, name=None, **sections):
    extra = f'[exchange]\ncodec = "{codec}"\n{more}\n[exchange.options]\n{options}\n'
    return spec(name or codec, rounds=rounds, min_nodes=3, extra=extra + sections.pop("extra", ""), **sections)


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_both_ways(federation, codec):
    run = federation.submit(exchange(codec, CODECS[codec]))
    shown = federation.wait(run)
    assert shown["metrics"]["accuracy"] > LEARNS
    updates = federation.admin.round(run, ROUNDS)["updates"]
    assert [u["verdict"] for u in updates] == ["accepted"] * 3
    rounds = federation.rounds(run)
    assert all(r["bytes_received"] < 4 * D * 3 * 0.9 for r in rounds)
    # The first model is sent; after that the committed change in the codec's form, where that can carry it.
    assert rounds[0]["bytes_sent"] > 4 * D * 3
    assert all((r["bytes_sent"] > 4 * D * 3) == (codec in WHOLE_DOWN) for r in rounds[1:])
    assert federation.wait(federation.submit(exchange(codec, CODECS[codec])))["model_sha256"] == shown["model_sha256"]


@pytest.mark.parametrize("codec", ["none", "bf16"])
def test_a_model_of_bf16_stays_as_it_is_to_the_bit_where_nothing_trains(federation, tmp_path, codec):
    parameters = 100_003
    options = f'parameters = {parameters}\ntensors = 3\ndtype = "bfloat16"\nstill = true'
    extra = f'[exchange]\ncodec = "{codec}"'
    run = federation.submit(
        spec(f"still-{codec}", task="synthetic", options=options, rounds=2, min_nodes=3, extra=extra)
    )
    federation.wait(run)
    federation.cli("run", "export", run, "--to", tmp_path / "m", "--data-dir", federation.coordinator_dir)
    exported = load_file(tmp_path / "m")
    expected = SyntheticModel(tensor_sizes(parameters, 3), torch.bfloat16).state_dict()
    assert exported.keys() == expected.keys()
    for name, tensor in expected.items():
        assert exported[name].dtype == torch.bfloat16
        assert torch.equal(exported[name].view(torch.int16), tensor.view(torch.int16))


def test_whole_models_go_down_where_that_is_asked_for(federation):
    run = federation.submit(exchange("int8", more='downlink = "model"'))
    federation.wait(run)
    assert all(r["bytes_sent"] > 4 * D * 3 for r in federation.rounds(run))


VOTE = """
[aggregation]
name = "majority-vote"
[weights]
by = "equal"
[server_optimizer]
name = "sgd"
options = { learning_rate = 0.002 }
"""


def vote(codec="sto-sign", options='bound = "broadcast"', name="vote", rounds=30, task="", **more):
    extra = f'[exchange]\npayload = "gradient"\ncodec = "{codec}"\n[exchange.options]\n{options}\n{VOTE}'
    return spec(name, rounds=rounds, min_nodes=3, training="local_steps = 1", options=task, extra=extra, **more)


def test_one_bit_a_coordinate_both_ways(federation):
    run = federation.submit(vote(rounds=30, task="hidden = 512"))
    shown = federation.wait(run)
    d = 64 * 512 + 512 + 512 * 10 + 10
    assert shown["metrics"]["accuracy"] > LEARNS
    for one in federation.rounds(run)[1:]:
        assert one["bytes_received"] / 3 < d / 8 + 100
        assert one["bytes_sent"] / 3 < d / 8 + 100


def test_plain_signs_are_signsgd_with_a_majority_vote(federation, tmp_path):
    """Against a loop as anyone would write it: three votes for +1 or -1 in each coordinate, zero being +1."""
    rounds, rate = 10, 0.002
    run = federation.submit(vote("sign", "", name="signs", rounds=rounds))
    shown = federation.wait(run)
    torch.manual_seed(derive_seed(7, "model"))
    model = Digits({}).model()
    data = Digits({}).train_data(NodeData())
    parts = [part_of(Digits({}), data, DataSection(), k, 3, 7) for k in range(3)]
    for number in range(1, rounds + 1):
        ballots = [signs(model, data, part, number, k) for k, part in enumerate(parts)]
        with torch.no_grad():
            for parameter, *cast in zip(model.parameters(), *ballots, strict=True):
                parameter -= rate * torch.sign(sum(cast))
    federation.cli("run", "export", run, "--to", tmp_path / "m", "--data-dir", federation.coordinator_dir)
    found, wanted = load_file(tmp_path / "m"), model.state_dict()
    different = sum(int(((found[name] - wanted[name]).abs() > rate / 2).sum()) for name in wanted)
    assert different < D / 1000  # where a gradient is as small as its rounding error, its sign is anybody's
    assert shown["metrics"]["accuracy"] > LEARNS
    for one in federation.rounds(run)[1:]:
        assert 3 * D / 8 < one["bytes_received"] < 3 * (D / 8 + 100)
        assert 3 * D / 8 < one["bytes_sent"] < 3 * (D / 8 + 100)


def signs(model, data, part, number, k):
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(derive_seed(7, "batches", number, k)))
    x, y = (values[part[order[:32]]] for values in data.tensors)
    gradients = torch.autograd.grad(torch.nn.functional.cross_entropy(model(x), y), list(model.parameters()))
    return [torch.where(gradient >= 0, 1.0, -1.0) for gradient in gradients]


CLIP = '[aggregation]\nname = "centered-clip"\n'


@pytest.mark.parametrize(
    ("codec", "options", "more"),
    [
        ("top-k", "fraction = 0.05", ""),  # error feedback on the nodes, and on the coordinator
        ("none", "", "worker_momentum = 0.5"),
        ("scaled-sign", "", "worker_momentum = 0.9"),
    ],
)
@pytest.mark.parametrize("point", ["trained:3", "journaled:3", "assigned:3"])
def test_what_a_node_keeps_survives_its_crash(federation, codec, options, more, point):
    text = exchange(codec, options, more, name=f"keeps-{codec}", extra=CLIP)
    undisturbed = federation.wait(federation.submit(text))["model_sha256"]
    federation.stop_node(1)
    federation.start_node(1, env={"COVEY_FAULTS": point})
    federation.wait_connected(3)
    run = federation.submit(text)
    assert federation.node(1).wait(60) == -9
    federation.start_node(1)
    assert federation.wait(run)["model_sha256"] == undisturbed
    assert [r["accepted"] for r in federation.rounds(run)] == [3] * ROUNDS


@pytest.mark.parametrize("point", ["update-recorded:8", "aggregate:3", "before-commit:3", "after-commit:3"])
def test_the_coordinators_state_survives_its_crash(federation, point):
    text = exchange("top-k", "fraction = 0.05", name="state", extra=CLIP)
    undisturbed = federation.wait(federation.submit(text))["model_sha256"]
    federation.stop_coordinator()
    federation.start_coordinator(env={"COVEY_FAULTS": point})
    federation.wait_connected(3)
    run = federation.submit(text)
    assert federation.coordinator.wait(60) == -9
    federation.start_coordinator()
    assert federation.wait(run)["model_sha256"] == undisturbed


def test_a_rule_with_too_few_updates_gives_way_to_its_fallback(federation):
    extra = '[aggregation]\nname = "krum"\noptions = { f = 1 }\n[aggregation.fallback]\nname = "median"\n'
    run = federation.submit(spec("fallback", rounds=2, min_nodes=3, extra=extra))
    federation.wait(run)
    with contextlib.closing(sqlite3.connect(federation.coordinator_dir / "covey.db")) as database:
        found = database.execute("SELECT detail FROM events WHERE run = ? AND kind = 'fallback-rule'", (run,))
        details = [json.loads(detail) for (detail,) in found]
    assert details == [{"round": n, "rule": "median"} for n in (1, 2)]


REFUSED = [
    ('[exchange]\ncodec = "sto-sign"\npayload = "gradient"', "exchange.codec: .*majority-vote"),
    (VOTE.replace("equal", "examples"), "weights.by: every vote counts the same"),
    ('[exchange]\ncodec = "top-k"\npayload = "parameters"', "exchange.payload: .*leaves out too much"),
    ('[exchange]\ncodec = "top-k"\npayload = "parameters"\nerror_feedback = false', "exchange.payload: .*too much"),
    ('[exchange]\ncodec = "terngrad"\nerror_feedback = true', "exchange.error_feedback: .*without bound"),
    ('[exchange]\ncodec = "terngrad"\ndownlink = "change"', "exchange.downlink: .*than there was"),
    (f'{VOTE}[aggregation.fallback]\nname = "mean"', "aggregation.fallback: a rule that votes"),
    ('[aggregation]\nname = "krum"\n[aggregation.fallback]\nname = "centered-clip"', "aggregation.fallback: .*keeps"),
    (
        '[exchange]\npayload = "gradient"\ncodec = "sto-sign"'
        + VOTE.replace('"majority-vote"', '"majority-vote"\noptions = { f = 1 }'),
        "exchange.options.trim: .*trim = 1",
    ),
    (f'{VOTE}[[aggregation.pre]]\nname = "bucketing"', "aggregation.pre: .*signs"),
    ('[aggregation]\nname = "kardam"', "aggregation.name: no aggregator|kardam"),
]


@pytest.mark.parametrize(("extra", "text"), REFUSED)
def test_impossible_combinations_are_refused_with_the_reason(federation, extra, text):
    training = "local_steps = 1" if "gradient" in extra else ""
    with pytest.raises(Exception, match=text):
        federation.submit(spec("refused", extra=extra, training=training))


def test_private_signs_and_what_they_spend(federation):
    options = 'epsilon = 4.0\ndelta = 1e-5\nclip = 1.0\nmechanism = "analytic-gaussian"'
    text = vote("dp-sign", options, name="private", rounds=12).replace("batch_size = 32", "batch_size = 400")
    run = federation.submit(text.replace("learning_rate = 0.002", "learning_rate = 0.005"))
    shown = federation.wait(run)
    spent_in_all = spent(DpSignOptions.model_validate(tomllib.loads(options)).privacy, 12)
    assert shown["metrics"]["privacy/epsilon"] == pytest.approx(spent_in_all.epsilon)
    assert shown["metrics"]["privacy/delta"] == 1e-5
    assert shown["metrics"]["accuracy"] > LEARNS
    assert not any(name.startswith("nodes/") for name in shown["metrics"])  # nothing else is told of the data
    updates = federation.admin.round(run, 12)["updates"]
    assert [(u["weight"], u["metrics"]) for u in updates] == [(1.0, {})] * 3
    # Noise comes from each node's own secret, never from the seed.
    again = federation.wait(federation.submit(text.replace("learning_rate = 0.002", "learning_rate = 0.005")))
    assert again["model_sha256"] != shown["model_sha256"]


def test_noise_is_never_drawn_twice_for_a_round(federation):
    """A private update whose file is lost is not made again: the node declines, and the round goes on without it."""
    options = 'epsilon = 4.0\ndelta = 1e-5\nclip = 1.0\nmechanism = "analytic-gaussian"'
    text = vote("dp-sign", options, name="lost-noise", rounds=3).replace("min_nodes = 3", "min_nodes = 2\nquorum = 0.5")
    federation.stop_node(1)
    federation.start_node(1, env={"COVEY_FAULTS": "journaled:2"})
    federation.wait_connected(3)
    run = federation.submit(text)
    assert federation.node(1).wait(60) == -9
    journal = json.loads((federation.node_dir(1) / "journal" / f"{run}.json").read_text())
    (lost,) = [part["digest"] for part in journal["parts"]]
    (federation.node_dir(1) / "files" / "artifacts" / lost).unlink()
    federation.start_node(1)
    federation.wait(run)
    (declined,) = [u for u in federation.admin.round(run, 2)["updates"] if u["node"] == federation.names[1]]
    assert declined["verdict"] == "declined"
    assert "new noise" in declined["reason"]
    assert [r["accepted"] for r in federation.rounds(run)] == [3, 2, 3]
