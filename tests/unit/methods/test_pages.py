"""The specifications that the methods' pages give to copy are accepted; what is a part of one, as part of one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from covey.spec import RunSpec, parse_data, parse_toml
from covey.testing.method_rounds import FEATURES, MethodRounds, PlainExample
from covey.worker.execute.coordinator_ops import describe
from covey.worker.jobs.runs import DescribeJob
from covey.worker.program.host import Host

DOCS = Path(__file__).parents[3] / "docs"


class TwoWidths(PlainExample):
    """As docs/personal.md has it: a body whose width is an option, and a head that is the same for all."""

    class Options(PlainExample.Options):
        """[task.options]."""

        hidden: int = 8

    options: Options

    def model(self) -> nn.Module:
        """Three layers by their names."""
        hidden = self.options.hidden
        layers = {"embedding": nn.Linear(FEATURES, hidden), "body": nn.Linear(hidden, 4), "head": nn.Linear(4, 2)}
        return nn.ModuleDict(layers)


def blocks_of(page: str) -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.DOTALL | re.MULTILINE)


def within(outer: dict[str, Any], inner: dict[str, Any]) -> dict[str, Any]:
    """The outer specification, with what the inner one says in its place."""
    joined = dict(outer)
    for key, value in inner.items():
        both = isinstance(value, dict) and isinstance(outer.get(key), dict)
        joined[key] = within(outer[key], value) if both else value
    return joined


def accepted(spec: RunSpec, folder: Path) -> MethodRounds:
    run = MethodRounds(spec, folder)
    assert run.description.parts
    return run


@pytest.mark.parametrize(("page", "count"), [("leaders", 1), ("codistillation", 3), ("representations", 4)])
def test_specifications_of_a_page_are_accepted(tmp_path: Path, page: str, count: int) -> None:
    blocks = blocks_of(page)
    assert len(blocks) == count
    for number, block in enumerate(blocks):
        accepted(parse_toml(block), tmp_path / str(number))


def test_those_of_distillation_are_accepted(tmp_path: Path) -> None:
    fedgen, one_shot, feddistill = blocks_of("distillation")
    whole = tomllib.loads(fedgen)
    runs = [
        accepted(parse_data(each), tmp_path / str(number))
        for number, each in enumerate(
            (whole, within(whole, tomllib.loads(one_shot)), {**whole, **tomllib.loads(feddistill)})
        )
    ]
    assert [run.spec.method.name for run in runs] == ["fedgen", "fedgen", "feddistill-plus"]
    assert "method/retrained" in runs[1].description.slots


def test_those_of_privacy_are_accepted() -> None:
    by_unit = {}
    for block in blocks_of("privacy")[:2]:
        spec = parse_toml(block)
        described = describe(DescribeJob(spec.to_json()), Host(torch.device("cpu")))
        assert described.privacy is not None
        by_unit[described.privacy.unit] = (described.privacy.rounds, round(described.privacy.epsilon, 2))
    assert by_unit == {"example": (40, 5.05), "node": (11, 19.0)}


def test_those_of_personal_models_are_accepted(tmp_path: Path) -> None:
    kinds, fedper, fedrep, agents, widths = blocks_of("personal")
    outer: dict[str, Any] = {
        "name": "page",
        "task": {"name": f"{__name__}:TwoWidths"},
        "training": {"learning_rate": 0.1},
        "rounds": {"count": 2},
    }
    mine = widths.replace("my_package.tasks:TwoWidths", f"{__name__}:TwoWidths")
    assert mine != widths
    parts = [within(outer, tomllib.loads(text)) for text in (kinds, fedper, fedrep, mine)]
    specs = [*map(parse_data, parts), parse_toml(agents)]
    runs = [accepted(spec, tmp_path / str(number)) for number, spec in enumerate(specs)]
    shared = [{tensor.name.split(".")[0] for tensor in run.layout.tensors} for run in runs]
    assert shared == [{"body"}, {"embedding", "body"}, {"embedding", "body"}, {"head"}, {"body"}]


def test_those_of_recipes_are_accepted(tmp_path: Path) -> None:
    outer: dict[str, Any] = {
        "name": "page",
        "task": {"name": "covey.testing.method_rounds:PlainExample"},
        "rounds": {"count": 2},
    }
    for number, block in enumerate(blocks_of("recipes")):
        accepted(parse_data(within(outer, tomllib.loads(block))), tmp_path / str(number))
