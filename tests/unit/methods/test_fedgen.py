from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from covey.errors import SpecError, TaskError
from covey.learning.partition import partition
from covey.learning.task import NodeData
from covey.methods.generator_state import Broadcast
from covey.methods.latents import Generator
from covey.seeds import derive_seed
from covey.testing.method_rounds import EXAMPLES, FEATURES, MethodRounds, NormedExample, PlainExample, examples, spec_of
from covey.testing.methods import MethodConformance
from covey.worker.jobs.training import TrainResult
from tests.unit.methods.naive import batches, first_model

NODES = 3
SMALL: dict[str, Any] = {"noise": 4, "hidden": 8, "steps": 4, "batch_size": 8}
EXACT: dict[str, Any] = {**SMALL, "labels": "exact"}
PLAIN: dict[str, Any] = {
    "task": {"name": "covey.testing.method_rounds:PlainExample"},
    "weights": {"by": "equal"},
    "data": {"partition": "dirichlet", "alpha": 1.0},
}


class TestConformance(MethodConformance):
    name = "fedgen"
    options: ClassVar = {**EXACT, "draw": "observed", "teacher": "weighted_nll", "ema": 0.5}
    sections: ClassVar = {"exchange": {"codec": "bf16"}}


def run_of(folder: Path, **options: Any) -> MethodRounds:
    return MethodRounds(spec_of("fedgen", options, **PLAIN), folder, NODES)


def vector(path: Path) -> Tensor:
    return torch.from_numpy(np.fromfile(path, "<f4"))


def received(run: MethodRounds) -> Broadcast:
    """The generator that the nodes of a run get next."""
    network = Generator(2, SMALL["noise"], SMALL["hidden"], 6)
    came = Broadcast.load(network, vector(run.version_state["method/generator"]), torch.device("cpu"))
    assert came is not None
    return came


def naive_counts(run: MethodRounds, index: int) -> list[int]:
    dataset = first_labels()[part_of(run, index)]
    return [int((dataset == label).sum()) for label in range(2)]


def first_labels() -> Tensor:
    labels: Tensor = examples(EXAMPLES, 1).tensors[1]
    return labels


def part_of(run: MethodRounds, index: int) -> Tensor:
    return partition(run.spec.data, index, NODES, run.spec.seed, examples=EXAMPLES, labels=first_labels())


def test_local_training_is_equation_5_with_the_authors_third_term(tmp_path: Path) -> None:
    """Two rounds: plain averaging, then training with the generator that came of it, written out by hand."""
    sections = {**PLAIN, "data": {}}
    run = MethodRounds(spec_of("fedgen", {**SMALL, "alpha": 2.0, "beta": 3.0}, **sections), tmp_path, NODES)
    plain = MethodRounds(spec_of("none", **sections), tmp_path / "plain", NODES)
    run.round()
    assert plain.round().model_sha256 == run.model_sha256, "in the first round there is no generator"
    network, start = received(run).network, run.tensors()
    run.round()
    ends = []
    for index in range(NODES):
        model = first_model(run.spec)
        model.load_state_dict(start)
        optimizer = torch.optim.SGD(model.parameters(), lr=run.spec.training.learning_rate)
        source = torch.Generator().manual_seed(derive_seed(5, "recipe", 2, index))

        def generated(labels: Tensor, source: torch.Generator = source) -> Tensor:
            z: Tensor = network(torch.rand(len(labels), 4, generator=source), labels)
            return z.detach()

        for x, y in batches(run.spec, index, NODES, 2):
            logits = model(x)
            loss, p = functional.cross_entropy(logits, y), functional.softmax(logits, 1)
            target = functional.softmax(functional.linear(generated(y), *model[2].parameters()), 1).detach()  # type: ignore[index]
            divergence = (target * (target.log() - p.log())).sum(1).mean()
            drawn = torch.multinomial(torch.tensor([0.5, 0.5]), 8, replacement=True, generator=source)
            of_drawn = functional.linear(generated(drawn), *model[2].parameters())  # type: ignore[index]
            nll = -functional.log_softmax(of_drawn, 1)[torch.arange(8), drawn].mean()
            optimizer.zero_grad()
            (loss + 2.0 * 0.98 * nll + 3.0 * 0.98 * divergence).backward()
            optimizer.step()
        ends.append({name: value.clone() for name, value in model.state_dict().items()})
    for name, value in run.tensors().items():
        torch.testing.assert_close(value, torch.stack([end[name] for end in ends]).mean(0), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("teacher", ["avg_logits", "weighted_nll"])
def test_the_generator_is_trained_from_the_nodes_own_predictors(tmp_path: Path, teacher: str) -> None:
    """One round and one step of Adam, written out by hand from the files that the nodes sent."""
    options = {**EXACT, "steps": 1, "teacher": teacher, "draw": "observed", "learning_rate": 0.01}
    run = MethodRounds(spec_of("fedgen", options, **PLAIN), tmp_path, NODES)
    heads, counts = [], []
    base = run.tensors()
    for name in run.names:
        files = {file.name: file.path for file in run.train(name, 1, attempt="by-hand").parts}
        delta, at = vector(files["model"]), 0
        own = {}
        for tensor in run.layout.part("model").tensors:
            own[tensor.name] = base[tensor.name] + delta[at : at + tensor.numel].view(tensor.shape)
            at += tensor.numel
        heads.append((own["2.weight"], own["2.bias"]))
        counts.append(torch.from_numpy(np.fromfile(files["labels"], "<i8")).float())
        assert counts[-1].tolist() == naive_counts(run, run.names.index(name))
    weights = torch.stack([count / count.sum() / NODES for count in counts])
    result = run.round()

    torch.manual_seed(derive_seed(5, "fedgen", 0))
    network = Generator(2, 4, 8, 6)
    source = torch.Generator().manual_seed(derive_seed(5, "fedgen", 1))
    labels = torch.multinomial(weights.sum(0), 8, replacement=True, generator=source)
    noise = torch.rand(8, 4, generator=source)
    z = network(noise, labels)
    total = torch.zeros(())
    for i, label in enumerate(labels.tolist()):
        shares = weights[:, label] / weights[:, label].sum()
        each = [functional.linear(z[i], *head) for head in heads]
        if teacher == "avg_logits":
            mixed = torch.stack([share * logits for share, logits in zip(shares, each, strict=True)]).sum(0)
            total = total - functional.log_softmax(mixed, 0)[label] / 8
        else:
            for share, logits in zip(shares, each, strict=True):
                total = total - share * functional.log_softmax(logits, 0)[label] / 8
    exponent = torch.zeros(())
    for i in range(8):
        for j in range(8):
            exponent = exponent + ((noise[i] - noise[j]) ** 2).mean() * (z[i] - z[j]).abs().mean() / 64
    assert result.metrics["generator/teacher_loss"][0] == pytest.approx(total.item(), rel=1e-4)
    assert result.metrics["generator/diversity_loss"][0] == pytest.approx(torch.exp(-exponent).item(), rel=1e-4)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01, weight_decay=0.01)
    (total + torch.exp(-exponent)).backward()
    optimizer.step()
    kept = received(run)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(kept.network.state_dict()[name], value, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(kept.labels, weights.sum(0) / weights.sum())


def test_features_of_one_label_stay_apart_by_the_diversity_loss(tmp_path: Path) -> None:
    """Seen in the spread of z within a label, with all else the same."""
    options = {**SMALL, "steps": 300, "learning_rate": 0.01}
    runs = [
        MethodRounds(spec_of("fedgen", {**options, "diversity": d}, **PLAIN), tmp_path / str(d), NODES)
        for d in (0.0, 1.0)
    ]
    collapsed, apart = (run.round().metrics["generator/spread"][0] for run in runs)
    assert apart > 2 * collapsed
    assert runs[0].model_sha256 == runs[1].model_sha256


def test_nodes_get_the_moving_average_of_the_generator(tmp_path: Path) -> None:
    runs = [
        MethodRounds(spec_of("fedgen", {**SMALL, "ema": e}, **PLAIN), tmp_path / str(e), NODES) for e in (0.0, 0.75)
    ]
    for run in runs:
        run.round()
    first = [vector(run.version_state["method/generator"]) for run in runs]
    assert torch.equal(*first)
    for run in runs:
        run.round()
    newest, averaged = (vector(run.version_state["method/generator"]) for run in runs)
    assert torch.equal(*(vector(run.version_state["method/generator-training"]) for run in runs))
    torch.testing.assert_close(averaged[:-2], 0.75 * first[0][:-2] + 0.25 * newest[:-2], rtol=1e-4, atol=1e-6)


def negative(content: bytes) -> bytes:
    return (-1).to_bytes(8, "little", signed=True) + content[8:]


def huge(content: bytes) -> bytes:
    return (1 << 41).to_bytes(8, "little") + content[8:]


def not_a_number(content: bytes) -> bytes:
    return np.full(len(content) // 8, np.nan).tobytes()


@pytest.mark.parametrize(
    "spoil", [negative, huge, not_a_number, lambda content: content[:-8], lambda content: content * 2]
)
def test_impossible_counts_cost_only_their_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[bytes], bytes]
) -> None:
    run, without = (MethodRounds(spec_of("fedgen", EXACT, **PLAIN), tmp_path / name, NODES) for name in ("a", "b"))
    honest = run.train

    def train(node: str, *given: Any, **fields: Any) -> TrainResult:
        result = honest(node, *given, **fields)
        if node == "n1":
            path = next(file.path for file in result.parts if file.name == "labels")
            path.write_bytes(spoil(path.read_bytes()))
        return result

    monkeypatch.setattr(run, "train", train)
    result = run.round()
    assert [verdict.accepted for verdict in result.verdicts] == [True, False, True]
    assert "label" in result.verdicts[1].reason
    assert result.model_sha256 == without.round(["n0", "n2"]).model_sha256
    for name, path in run.version_state.items():
        assert path.read_bytes() == without.version_state[name].read_bytes()


@pytest.mark.parametrize("number", [1, 2])
def test_a_predictor_with_absurd_values_does_not_spoil_the_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It is in the mean like any update; the generator is that of the round before, and the version says so."""
    run = run_of(tmp_path, **SMALL)
    if number == 2:
        run.round()
    before, honest = dict(run.version_state), run.train

    def train(node: str, *given: Any, **fields: Any) -> TrainResult:
        result = honest(node, *given, **fields)
        if node == "n1":
            path = next(file.path for file in result.parts if file.name == "model")
            d = len(np.fromfile(path, "<f4"))
            np.random.default_rng(0).uniform(-1e30, 1e30, d).astype("<f4").tofile(path)
        return result

    monkeypatch.setattr(run, "train", train)
    result = run.round()
    assert result.metrics == {"generator/discarded": (1.0, 1.0)}
    for name, path in run.version_state.items():
        assert torch.isfinite(vector(path)).all()
        assert number == 1 or path.read_bytes() == before[name].read_bytes()
    if number == 1:
        network = Generator(2, SMALL["noise"], SMALL["hidden"], 6)
        assert Broadcast.load(network, vector(run.version_state["method/generator"]), torch.device("cpu")) is None


def test_large_counts_weigh_no_more_than_their_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, plain = (MethodRounds(spec_of("fedgen", EXACT, **PLAIN), tmp_path / name, NODES) for name in ("a", "b"))
    honest = run.train

    def train(node: str, *given: Any, **fields: Any) -> TrainResult:
        result = honest(node, *given, **fields)
        path = next(file.path for file in result.parts if file.name == "labels")
        (np.fromfile(path, "<i8") * (1 << 20 if node == "n1" else 1)).tofile(path)
        return result

    monkeypatch.setattr(run, "train", train)
    run.round()
    plain.round()
    a, b = (vector(each.version_state["method/generator"]) for each in (run, plain))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_noise_is_drawn_once_a_run_and_kept(tmp_path: Path) -> None:
    options = {**SMALL, "labels": "noisy", "epsilon": 0.05}
    run = MethodRounds(spec_of("fedgen", options, **PLAIN), tmp_path, NODES)
    sent = []
    for number in (1, 2, 3):
        run.round(spoilt=["n0"] if number == 2 else [])  # also when that update was not accepted
        sent.append([np.fromfile(run.nodes[name].own["method/labels"], "<i8").tolist() for name in run.names])
    assert sent[0] == sent[1] == sent[2]
    assert sent[0] != [naive_counts(run, index) for index in range(NODES)]
    result = run.train("n0", 4)
    assert result.private, "an update with noise must never be made twice"
    assert np.fromfile(next(f.path for f in result.parts if f.name == "labels"), "<i8").tolist() == sent[0][0]


def test_a_site_that_sends_once(tmp_path: Path) -> None:
    """One round: the mean is the version; the ensemble and the retrained predictor are measured beside it."""
    sections = {**PLAIN, "rounds": {"count": 1}}
    run = MethodRounds(spec_of("fedgen", {**EXACT, "one_shot": True, "steps": 200}, **sections), tmp_path, NODES)
    plain = MethodRounds(spec_of("none", **sections), tmp_path / "plain", NODES)
    metrics = run.round().metrics
    assert run.model_sha256 == plain.round().model_sha256
    assert {"ensemble/accuracy", "ensemble/loss", "retrained/accuracy", "retrained/loss"} <= set(metrics)
    head, tensors = vector(run.version_state["method/retrained"]), run.tensors()
    assert len(head) == tensors["2.weight"].numel() + 2
    model = first_model(run.spec)
    model.load_state_dict({**tensors, "2.weight": head[:12].view(2, 6), "2.bias": head[12:]})
    x, y = examples(20, 2).tensors
    assert metrics["retrained/accuracy"] == ((model(x).argmax(1) == y).sum().item(), 20)
    assert not torch.equal(head[:12].view(2, 6), tensors["2.weight"])
    with pytest.raises(SpecError, match=r"method\.options\.one_shot: a one-shot run has one round"):
        MethodRounds(spec_of("fedgen", {"one_shot": True}, **PLAIN), tmp_path / "refused", NODES)


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"aggregation": {"name": "median"}}, r'aggregation\.name: a robust rule .*"mean"'),
        ({"exchange": {"payload": "gradient"}, "training": {"local_steps": 1}}, r"exchange\.payload: "),
        ({"task": {"name": "digits", "options": {"hidden": 0}}}, r"method\.name: .*'digits' names none.*Split"),
        (
            {"mode": "async", "aggregation": {"name": "buffered"}, "rounds": {}, "async": {"updates": 3}},
            r'mode: method \'fedgen\' works in mode "rounds" only',
        ),
    ],
)
def test_what_it_cannot_work_with_is_refused(tmp_path: Path, sections: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        MethodRounds(spec_of("fedgen", SMALL, **sections), tmp_path, NODES)


class TwoBodies(NormedExample):
    """A body whose width is an option of each node, and the predictor of the other tests."""

    class Options(NormedExample.Options):
        """[task.options]."""

        hidden: int = 5

    options: Options

    def model(self) -> nn.Module:
        """Body, and head."""
        body = nn.Sequential(nn.Linear(FEATURES, self.options.hidden), nn.ReLU(), nn.Linear(self.options.hidden, 6))
        return nn.Sequential(body, nn.ReLU(), nn.Linear(6, 2))


def test_nodes_with_different_bodies_share_the_predictor_and_the_generator(tmp_path: Path) -> None:
    """Only the last layer travels; the generator is that of the same heads, and every node trains with it."""
    sections = {
        **PLAIN,
        "task": {"name": f"{__name__}:TwoBodies", "nodes": {"n1": {"hidden": 11}}},
        "exchange": {"share": ["2.*"]},
    }
    run = MethodRounds(spec_of("fedgen", EXACT, **sections), tmp_path, NODES)
    results = [run.round() for _ in range(3)]
    assert [v.accepted for v in results[-1].verdicts] == [True] * NODES
    assert set(run.tensors()) == {"2.weight", "2.bias"}
    losses = [result.metrics["generator/teacher_loss"][0] for result in results]
    assert losses[-1] < losses[0]
    alone = MethodRounds(spec_of("none", **sections), tmp_path / "alone", NODES)
    for _ in range(3):
        alone.round()
    assert run.model_sha256 != alone.model_sha256, "the generator's features change what nodes learn"


def test_a_predictor_that_stays_on_the_nodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"needs the whole predictor to travel, and '2\.bias' stays on the nodes"):
        MethodRounds(spec_of("fedgen", EXACT, **PLAIN, exchange={"local": ["2.*"]}), tmp_path, NODES)


class OneIsOdd(PlainExample):
    """One example has a label that the model does not have."""

    def train_data(self, data: NodeData) -> TensorDataset:
        """The same on all nodes, which take parts of it."""
        x, y = examples(EXAMPLES, 1).tensors
        return TensorDataset(x, y.where(torch.arange(EXAMPLES) > 0, torch.tensor(5)))


def test_counts_with_noise_leave_out_a_label_that_there_is_not(tmp_path: Path) -> None:
    """Whoever declined then would tell, without noise, that there is such an example."""
    for labels, fails in (("noisy", 0), ("exact", 1)):
        sections = {**PLAIN, "task": {"name": f"{__name__}:OneIsOdd"}, "training": {"local_steps": 1, "batch_size": 1}}
        options = {**SMALL, "labels": labels} | ({"epsilon": 0.5} if labels == "noisy" else {})
        run, failed = MethodRounds(spec_of("fedgen", options, **sections), tmp_path / labels, NODES), 0
        for name in run.names:
            try:
                run.train(name)
            except TaskError as error:
                failed += "there are others here" in str(error)
        assert failed == fails
