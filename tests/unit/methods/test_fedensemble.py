from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from covey.errors import SpecError
from covey.learning.models.state import load_into
from covey.methods.averaging import Averaging
from covey.methods.contract import FinishContext, Made
from covey.testing.method_rounds import MethodRounds, examples, spec_of
from tests.unit.methods.naive import first_model, trained

NODES = 3


def test_the_ensemble_is_that_of_the_nodes_models(tmp_path: Path) -> None:
    """Trained by hand, each node's with its own BatchNorm statistics; the model is that of plain averaging."""
    spec = spec_of("fedensemble", weights={"by": "equal"})
    run = MethodRounds(spec, tmp_path / "e", NODES)
    plain = MethodRounds(spec_of("none", weights={"by": "equal"}), tmp_path / "n", NODES)
    result = run.round()
    first = first_model(spec)
    start, (x, y) = {n: t.clone() for n, t in first.state_dict().items()}, examples(20, 2).tensors
    total = torch.zeros(20, 2)
    for index in range(NODES):
        first.load_state_dict(trained(spec, start, index, NODES, 1)[0])
        total += first.eval()(x).detach()
    correct, count = result.metrics["ensemble/accuracy"]
    assert (correct, count) == ((total.argmax(1) == y).sum().item(), 20)
    loss, count = result.metrics["ensemble/loss"]
    torch.testing.assert_close(loss / count, torch.nn.functional.cross_entropy(total, y).item(), rtol=1e-4, atol=1e-5)
    assert plain.round().model_sha256 == result.model_sha256


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"exchange": {"payload": "gradient"}, "training": {"local_steps": 1}}, r"payload: .fedensemble. needs"),
        (
            {
                "task": {"name": "covey.testing.method_rounds:PlainExample"},
                "exchange": {"codec": "sign"},
                "aggregation": {"name": "majority-vote"},
                "weights": {"by": "equal"},
            },
            r"exchange\.codec: .*signs",
        ),
    ],
)
def test_what_hides_the_models_is_refused(tmp_path: Path, sections, text) -> None:
    with pytest.raises(SpecError, match=text):
        MethodRounds(spec_of("fedensemble", **sections), tmp_path, NODES)


def test_a_method_sees_what_each_accepted_node_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its share, its parts, its model, and the model before and after; of a rejected node nothing."""
    seen: list[FinishContext] = []
    models: list[dict[str, Tensor]] = []

    def finish(self: Averaging, parts: object, state: object, context: FinishContext) -> Made:
        assert context.model is not None
        assert context.base is not None
        seen.append(context)
        models.append({n: t.clone() for n, t in context.model().state_dict().items()})
        deltas = [update.share * update.parts["model"].dense() for update in context.updates.values()]
        after = context.base.dense() + torch.stack(deltas).sum(0)
        parameters = [p.detach().reshape(-1) for p in context.model().parameters()]
        torch.testing.assert_close(after, torch.cat(parameters), rtol=1e-4, atol=1e-6)
        first = context.updates["n0"]
        own = context.base.dense() + first.parts["model"].dense()
        torch.testing.assert_close(own, torch.cat([p.detach().reshape(-1) for p in first.model().parameters()]))
        return Made(metrics={"nodes": (float(len(context.updates)), 1.0), **dict(context.evaluate(first.model()))})  # type: ignore[arg-type]

    monkeypatch.setattr(Averaging, "finish", finish)
    run = MethodRounds(spec_of("none"), tmp_path, NODES)
    result = run.round(spoilt=["n1"])
    (context,) = seen
    assert (context.accepted, context.round, list(context.updates)) == (("n0", "n2"), 1, ["n0", "n2"])
    assert sum(update.share for update in context.updates.values()) == pytest.approx(1)
    assert set(context.updates["n2"].parts) == {"model", "buffers"}
    model = first_model(run.spec)
    load_into(model, run.model, run.layout)
    assert all(torch.equal(value, models[0][name]) for name, value in model.state_dict().items())
    assert result.metrics["nodes"] == (2.0, 1.0)
    assert result.metrics["accuracy"][1] == 20


def test_an_update_that_a_method_objects_to_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Averaging, "objection", lambda self, parts, form: f"no: {sorted(parts)}")
    result = MethodRounds(spec_of("none"), tmp_path, NODES).round()
    assert [(v.accepted, v.reason) for v in result.verdicts] == [(False, "no: []")] * NODES
    assert not result.enough
