"""`[exchange] share`, `local` and `frozen`: what they leave on the nodes, and what nobody changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from covey.errors import LayoutError, PolicyError, SpecError
from covey.gossip.protocols.runs import require_possible
from covey.layout import Layout
from covey.learning.models.sharing import sharing_of
from covey.spec import ExchangeSection, GossipSpec
from covey.testing.method_rounds import FEATURES, MethodRounds, NormedExample, PlainExample, spec_of
from covey.worker.execute.coordinator_ops import describe
from covey.worker.execute.forms import in_words
from covey.worker.jobs.runs import DescribeJob
from covey.worker.jobs.training import TrainLimits
from covey.worker.program.context import RunContext
from covey.worker.program.host import Host
from covey.worker.program.local_tensors import LocalTensors
from tests.unit.methods.naive import first_model, mean, shares, trained

HEAD = {"3.weight", "3.bias"}
WIDE = {"name": f"{__name__}:TwoWidths", "nodes": {"n1": {"hidden": 11}}}


class TwoWidths(PlainExample):
    """A body whose width is an option, and a head that is the same for all."""

    class Options(PlainExample.Options):
        """[task.options]."""

        hidden: int = 5
        features: int = 4

    options: Options

    def model(self) -> nn.Module:
        """Body, and head."""
        body = nn.Sequential(nn.Linear(FEATURES, self.options.hidden), nn.ReLU())
        body.append(nn.Linear(self.options.hidden, self.options.features))
        return nn.ModuleDict({"body": body, "head": nn.Linear(self.options.features, 2)})

    def loss(self, model: nn.Module, batch: Any) -> Any:
        """Of the two, one after the other."""
        assert isinstance(model, nn.ModuleDict)
        return super().loss(nn.Sequential(model["body"], model["head"]), batch)


def run_of(folder: Path, exchange: dict[str, Any], nodes: int = 3, **sections: Any) -> MethodRounds:
    return MethodRounds(spec_of("none", exchange=exchange, **sections), folder, nodes)


def own_tensors(run: MethodRounds, node: str, names: set[str]) -> dict[str, Tensor]:
    model = NormedExample().model()
    LocalTensors(model, frozenset(names)).load_into(model, run.nodes[node].own["method/local"])
    return {name: value.clone() for name, value in model.state_dict().items() if name in names}


def test_fedbn_is_a_setting_of_it(tmp_path: Path) -> None:
    named, chosen = MethodRounds(spec_of("fedbn"), tmp_path / "fedbn"), run_of(tmp_path / "local", {"local": ["1.*"]})
    for _ in range(2):
        named.round(), chosen.round()
    assert chosen.model_sha256 == named.model_sha256
    for node in chosen.names:
        assert chosen.nodes[node].own["method/local"].read_bytes() == named.nodes[node].own["method/local"].read_bytes()


@pytest.mark.parametrize("first", [0, 2])
def test_the_head_stays_on_the_node_and_is_trained_with_the_body_or_before_it(tmp_path: Path, first: int) -> None:
    """FedPer (Arivazhagan et al. 2019), and FedRep: naive loops over whole models of which the bodies are averaged."""
    training = {"learning_rate": 0.1, "batch_size": 8, "local_epochs": 1, "local_first": first}
    run = run_of(tmp_path, {"share": ["0.*", "1.*"]}, training=training)
    spec, start = run.spec, first_model(run.spec).state_dict()
    states = [{name: value.clone() for name, value in start.items()} for _ in range(3)]

    def by_turns() -> Any:
        done = 0

        def correct(model: nn.Module) -> None:
            nonlocal done
            for name, parameter in model.named_parameters():
                if first and (name in HEAD) != (done < first):
                    parameter.grad = None
            done += 1

        return correct

    for number in (1, 2):
        run.round()
        states = [trained(spec, state, k, 3, number, correct=by_turns())[0] for k, state in enumerate(states)]
        together = mean(states, shares(spec, [0, 1, 2], 3))
        states = [{name: state[name] if name in HEAD else together[name] for name in state} for state in states]
    assert run.tensors().keys() == start.keys() - HEAD
    for index, state in enumerate(states):
        found = {**run.tensors(), **own_tensors(run, f"n{index}", HEAD)}
        for name, value in state.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
    assert not torch.equal(own_tensors(run, "n0", HEAD)["3.bias"], own_tensors(run, "n1", HEAD)["3.bias"])


def test_a_round_without_a_step_for_the_body_says_so(tmp_path: Path) -> None:
    training = {"batch_size": 8, "local_epochs": 1, "local_first": 4}
    with pytest.raises(Exception, match=r"local_first is 4, and a round has 4 steps .* choose fewer"):
        run_of(tmp_path, {"local": ["3.*"]}, training=training).train("n0")


def test_what_is_sent_has_no_byte_of_what_stays(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"local": ["3.*"], "payload": "parameters"})
    for number in (1, 2):
        for node in run.names:
            result = run.train(node, number)
            (kept,) = [file.path for file in result.own_state if file.name == "method/local"]
            local = kept.read_bytes()
            assert len(local) == 4 * (6 * 2 + 2)
            sent = b"".join(part.path.read_bytes() for part in result.parts)
            pieces = {local[at : at + 8] for at in range(0, len(local) - 7, 4)}
            assert not [piece for piece in pieces if piece in sent]
        run.round()


def test_what_is_frozen_keeps_its_first_value_and_is_in_no_file(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"frozen": ["0.*"], "local": ["3.*"]})
    first = {tensor.name for tensor in run.layout.tensors}
    assert first == {f"1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    context = RunContext(run.spec.to_json(), torch.device("cpu"), paths={}, options={}, allow_path=True)
    before = {name: value.clone() for name, value in context.model.state_dict().items()}
    for _ in range(2):
        run.round()
    assert len(run.nodes["n0"].own["method/local"].read_bytes()) == 4 * (6 * 2 + 2)
    after = run._host.contexts.get("run", run.spec.to_json(), allow_path=True, paths={}, options={}).model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in ("0.weight", "0.bias"))
    assert not torch.equal(before["1.weight"], run.tensors()["1.weight"])
    assert in_words(context.form()).startswith("shared: 104 bytes in 1.weight")
    with pytest.raises(LayoutError, match=r"frozen tensors of task .* have other values here than in the run"):
        context.require_layout(replace(context.layout, frozen="0" * 64).to_json())
    assert Layout.from_json(context.layout.to_json()).frozen == context.layout.frozen != ""


def test_two_architectures_average_the_head_that_they_share(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"share": ["head.*"]}, nodes=2, task=WIDE)
    run.round()
    sizes = [run.nodes[name].own["method/local"].stat().st_size for name in run.names]
    assert sizes == [4 * ((FEATURES + 1) * hidden + (hidden + 1) * 4) for hidden in (5, 11)]
    assert {tensor.name for tensor in run.layout.tensors} == {"head.weight", "head.bias"}
    before = [run.evaluate(name)["loss"] for name in run.names]
    for _ in range(5):
        run.round()
    assert all(run.evaluate(name)["loss"] < loss for name, loss in zip(run.names, before, strict=True))
    with pytest.raises(PolicyError, match=r"a model of 157 parameters, those that stay here included"):
        run.train("n1", 9, limits=TrainLimits(parameters=150))
    run.train("n0", 9, limits=TrainLimits(parameters=150))


def test_tied_tensors_go_by_all_of_their_names() -> None:
    model = nn.ModuleDict({"in": nn.Linear(3, 3), "out": nn.Linear(3, 3)})
    model["out"].weight = model["in"].weight
    found = sharing_of(ExchangeSection(local=("out.*",)), model)
    assert (set(found.local), len(found.frozen), len(found.unmatched)) == ({"in.weight", "out.bias"}, 0, 0)
    assert sharing_of(ExchangeSection(), model).local == frozenset()


OWN_FIT = f"{__name__}:OwnFit"


class OwnFit(PlainExample):
    """Trains by itself."""

    def fit(self, model: Any, data: Any, settings: Any) -> None:
        """Not really."""


@pytest.mark.parametrize(
    ("exchange", "sections", "text"),
    [
        ({"share": ["body.*"]}, {}, r"exchange\.share: 'body\.\*' matches no parameter or buffer; the model has 0"),
        ({"local": ["3.*", "4.*"]}, {}, r"exchange\.local: '4\.\*' matches no parameter"),
        ({"frozen": ["x"]}, {}, r"exchange\.frozen: 'x' matches no parameter"),
        ({"local": ["*"]}, {}, r"exchange\.share: exchange\.share leaves every parameter on its node"),
        ({"share": ["*running*"]}, {}, r"exchange\.share: .*nothing is left to be exchanged"),
        ({"share": []}, {}, r"exchange\.share: .*at least 1"),
        ({"frozen": ["1.*"]}, {}, r"exchange\.frozen: '1\.\S+' is a statistic of batches, which training changes"),
        ({"frozen": ["3.*"], "local": ["3.bias"]}, {}, r"exchange\.frozen: '3\.bias' stays local as well"),
        ({"frozen": ["1.weight"]}, {"method": "fedbn"}, r"exchange\.frozen: '1\.weight' stays local as well"),
        ({"local": ["3.*"]}, {"evaluation": {"where": "central"}}, r"evaluation\.where: the coordinator lacks"),
        (
            {"local": ["3.*"], "payload": "gradient"},
            {"training": {"local_steps": 1}},
            r"exchange\.local: with payload \"gradient\" there is no local step",
        ),
        ({}, {"training": {"local_first": 2}}, r"training\.local_first: nothing of the model stays local"),
        (
            {"local": ["3.*"]},
            {"training": {"local_steps": 3, "local_first": 3}},
            r"training\.local_first: no step would be left for what is shared",
        ),
        (
            {"local": ["2.*"]},
            {"training": {"local_first": 1}, "task": {"name": OWN_FIT}},
            r"training\.local_first: it changes the built-in loop, and task",
        ),
        (
            {"local": ["3.*"]},
            {"training": {"local_first": 1}, "method": "scaffold"},
            r"training\.local_first: \"scaffold\" divides",
        ),
        ({"share": ["body.*"]}, {"task": WIDE}, r"task\.nodes\.n1: shared tensors must be the same on all nodes: the"),
        (
            {"share": ["head.*"]},
            {"task": {**WIDE, "nodes": {"n1": {"width": 2}}}},
            r"task\.nodes\.n1: task\.options\.width",
        ),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, exchange: Any, sections: Any, text: str) -> None:
    others = {key: value for key, value in sections.items() if key != "method"}
    with pytest.raises(SpecError, match=text):
        MethodRounds(spec_of(sections.get("method", "none"), exchange=exchange, **others), tmp_path)


def test_options_of_a_node_that_there_is_not_are_refused() -> None:
    section = spec_of("none", task=WIDE).task
    section.require_known(["n0", "n1"])
    with pytest.raises(SpecError, match=r"task\.nodes\.n1: no node has this name; there are n0, n2"):
        section.require_known(["n2", "n0"])


def test_gossip_averages_whole_models() -> None:
    with pytest.raises(SpecError, match=r"exchange\.local: mode \"gossip\" does not read this key"):
        spec_of("none", exchange={"local": ["3.*"]}, rounds={}, mode="gossip")
    wide = spec_of("none", task=WIDE, rounds={}, mode="gossip")
    assert isinstance(wide, GossipSpec)
    with pytest.raises(SpecError, match=r"task\.nodes: protocol \"sgp\" mixes or compares whole models"):
        require_possible(wide)


@pytest.mark.parametrize(
    "sections",
    [
        {"exchange": {"local": ["3.*"], "codec": "int8", "payload": "delta"}},
        {"exchange": {"local": ["3.*"], "codec": "top-k", "error_feedback": True}},
        {"exchange": {"local": ["3.*"]}, "method": "fedprox"},
        {"exchange": {"local": ["3.*"]}, "method": "fedbn"},
        {"exchange": {"local": ["3.*"]}, "method": "scaffold"},
        {"exchange": {"local": ["3.*"]}, "aggregation": {"name": "median"}},
        {"exchange": {"local": ["3.*"]}, "server_optimizer": {"name": "adam"}},
    ],
)
def test_it_goes_with_codecs_rules_methods_and_server_optimizers(tmp_path: Path, sections: dict[str, Any]) -> None:
    others = {key: value for key, value in sections.items() if key != "method"}
    run = MethodRounds(spec_of(sections.get("method", "none"), **others), tmp_path, 3)
    for _ in range(2):
        assert run.round().enough
    assert not {tensor.name for tensor in run.layout.tensors} & HEAD
    kept = [run.nodes[name].own["method/local"].read_bytes() for name in run.names]
    assert len(set(kept)) == 3


def test_it_goes_with_asynchronous_runs() -> None:
    spec = spec_of(
        "none",
        mode="async",
        exchange={"local": ["3.*"]},
        aggregation={"name": "staleness-mean"},
        rounds={},
        **{"async": {"updates": 3}},
    )
    description = describe(DescribeJob(spec.to_json(), allow_path=True), Host(torch.device("cpu")))
    assert description.node_state == ("method/local",)
    assert not description.central
