"""Every entry of a state_dict makes the round trip (rounds, export, strict loading), or is refused by its name."""

import pytest
import torch
from safetensors.torch import load_file

from covey.artifact import read_chunks
from covey.client.further_names import write_with_all_names
from covey.errors import LayoutError
from covey.learning.models.entries import unwrapped
from covey.testing.method_rounds import MethodRounds, spec_of
from covey.worker.execute.coordinator_ops import describe
from covey.worker.execute.node_ops import check
from covey.worker.jobs.runs import CheckJob, DescribeJob
from covey.worker.program.host import Host
from tests.unit.worker.odd_models import CARRIED, REFUSED

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def spec(kind, **sections):
    return spec_of("none", task={"name": "tests.unit.worker.odd_models:OddTask", "options": {"kind": kind}}, **sections)


def exported(run, path):
    with path.open("w+b") as file, run.model.open("rb") as model:
        write_with_all_names(map(bytes, read_chunks(model)), file)
    return load_file(path)


class FreshProcesses(MethodRounds):
    """Each job is done by a worker of its own, as on machines that restart."""

    def train(self, *args, **fields):
        self._host = Host(torch.device("cpu"))
        return super().train(*args, **fields)


@pytest.mark.parametrize("kind", CARRIED)
def test_a_model_makes_the_round_trip(kind, tmp_path):
    run = MethodRounds(spec(kind), tmp_path / "warm", nodes=2)
    first = exported(run, tmp_path / "first.safetensors")
    for _ in range(2):
        assert run.round().enough
    last = exported(run, tmp_path / "last.safetensors")
    model = unwrapped(CARRIED[kind]())
    model.load_state_dict(last, strict=True)
    assert {name: value.dtype for name, value in model.state_dict().items()} == {n: v.dtype for n, v in last.items()}
    assert any(not torch.equal(first[name], last[name]) for name in first)
    cold = FreshProcesses(spec(kind), tmp_path / "cold", nodes=2)
    for _ in range(2):
        cold.round()
    assert cold.model_sha256 == run.model_sha256


def test_constants_stay_what_they_are_and_observers_learn(tmp_path):
    for kind, names in {"causal-mask": ["mask"], "nan-buffer": ["unknown"], "half-mask": ["mask", "more"]}.items():
        run = MethodRounds(spec(kind), tmp_path / kind, nodes=3)
        first = run.tensors()
        run.round()
        for name in names:
            assert torch.equal(first[name].view(torch.uint8), run.tensors()[name].view(torch.uint8))
    run = MethodRounds(spec("observer"), tmp_path / "observer", nodes=3)
    run.round()
    assert -torch.inf < run.tensors()["low"] < 0 < run.tensors()["high"] < torch.inf


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_is_refused_by_name_at_submission_and_by_a_check(kind):
    text, host = spec(kind).to_json(), Host(torch.device("cpu"))
    with pytest.raises(LayoutError, match=REFUSED[kind][1]):
        describe(DescribeJob(text, allow_path=True, submitted=True), host)
    with pytest.raises(LayoutError, match=REFUSED[kind][1]):
        check(CheckJob(text, allow_path=True), host)


class Ordered(torch.nn.Module):
    """Two layers, registered in one order or the other."""

    def __init__(self, names):
        super().__init__()
        for name in names:
            self.add_module(name, torch.nn.Linear(*{"a": (4, 4), "b": (4, 3)}[name]))

    def forward(self, x):
        for name in "ab":
            x = self.get_submodule(name)(x)
        return x


def test_a_node_may_have_the_tensors_in_another_order_but_no_others(tmp_path, monkeypatch):
    monkeypatch.setitem(CARRIED, "linear", lambda: Ordered("ab"))
    run = FreshProcesses(spec("linear"), tmp_path, nodes=2)
    model = run.train("n0").parts[0].path.read_bytes()
    monkeypatch.setitem(CARRIED, "linear", lambda: Ordered("ba"))
    assert run.train("n0", attempt="reordered").parts[0].path.read_bytes() == model
    monkeypatch.setitem(CARRIED, "linear", lambda: Ordered("a"))
    with pytest.raises(LayoutError, match=r"tensor 'b\.weight' float32 \[3, 4\] is in the run only"):
        run.train("n0", attempt="other")
