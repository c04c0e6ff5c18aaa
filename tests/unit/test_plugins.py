"""Kinds of plug-ins, with a package that is really installed: a folder with entry points on the path."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from covey import plugins
from covey.aggregation.asynchronous.contract import ASYNC_POLICIES
from covey.aggregation.contract import AGGREGATORS, Aggregator
from covey.aggregation.krum import Krum
from covey.codecs.contract import CODECS, Codec
from covey.codecs.sto_sign import StoSign
from covey.errors import PluginError, SpecError
from covey.learning.optimizers import local_optimizer
from covey.learning.partition import partition
from covey.learning.schedules import factor
from covey.learning.task import TASKS, Task
from covey.options import Placed
from covey.plugins import GROUPS, KINDS_GROUP, Kind, Pluggable, by_path, kind_named
from covey.spec import DataSection, Schedule, TrainingSection, parse_toml
from covey.worker.execute.from_spec import load_aggregator, load_codec, load_fallback, load_server_optimizer

RULES = """
from covey.aggregation.contract import Aggregator

class Old(Aggregator):
    def __init__(self, options=None):  # as plug-ins were written for earlier versions
        super().__init__(options)
        self.ready = True

    def aggregate(self, updates, state, context):
        raise NotImplementedError

class NoRule:
    pass
"""
TASK = """
from covey.learning.task import Task

class Silent(Task):
    def fit(self, model, data, settings):
        return None
"""
TRAINING = """
import numpy as np
from covey.learning.optimizers import LocalOptimizer
from covey.learning.partition import Partition
from covey.learning.schedules import FactorSchedule
from covey.options import PluginOptions

class Signs(LocalOptimizer):
    class Options(PluginOptions):
        momentum: float = 0.25

    def update(self, parameters, gradients, slots, age):
        for parameter, gradient in zip(parameters, gradients):
            parameter.sub_(self.learning_rate * (1 - self.options.momentum) * gradient.sign())

class Stripes(Partition):
    class Options(PluginOptions):
        first: int = 0

    def cut(self, examples, parts, rng):
        return [np.arange((self.options.first + part) % parts, examples.count, parts) for part in range(parts)]

class Leaky(Partition):
    def cut(self, examples, parts, rng):
        return [np.arange(part, examples.count - 1, parts) for part in range(parts)]

class Alternating(FactorSchedule):
    class Options(PluginOptions):
        low: float = 0.5

    def factor(self, since, last):
        return self.options.low if since % 2 else 1.0
"""
ENTRY_POINTS = """
[covey.aggregators]
old = house_rules:Old
no-rule = house_rules:NoRule
broken = broken_rules:Rule
[covey.tasks]
silent = silent_task:Silent
[covey.local_optimizers]
signs = house_training:Signs
[covey.partitions]
stripes = house_training:Stripes
leaky = house_training:Leaky
[covey.schedules]
alternating = house_training:Alternating
"""
MODULES = {
    "broken_rules": "import no_such_module",
    "house_rules": RULES,
    "silent_task": TASK,
    "house_training": TRAINING,
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs `MODULES` with their entry points."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    about = tmp_path / "house-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: house\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    plugins.forget_installed()
    yield
    plugins.forget_installed()
    for name in MODULES:
        sys.modules.pop(name, None)


def test_every_kind_has_a_contract_and_is_listed_without_importing_it():
    assert set(plugins._entries(KINDS_GROUP)) == set(GROUPS)
    for name, group in GROUPS.items():
        kind = kind_named(name)
        assert isinstance(kind, Kind)
        assert (kind.name, kind.group) == (name, group)
        assert issubclass(kind.base, Pluggable)
        assert kind.base.section == kind.section
        assert kind.installed()


@pytest.mark.parametrize("name", GROUPS)
def test_every_built_in_class_is_of_its_kind(name):
    kind = kind_named(name)
    for plugin in kind.installed():
        assert issubclass(kind.load(plugin.name), kind.base)


def test_a_kind_that_does_not_exist_is_refused_with_the_choices():
    with pytest.raises(PluginError, match="no kind of plug-in is named 'rule'; choose aggregator, async-policy"):
        kind_named("rule")


def test_an_unknown_name_is_refused_with_the_installed_ones_and_the_place():
    with pytest.raises(PluginError, match=r"^no aggregator named 'kram' is installed here; installed: bulyan, .*krum"):
        AGGREGATORS.load("kram")
    with pytest.raises(PluginError, match=r"^aggregation\.fallback\.name: no aggregator named 'kram'"):
        AGGREGATORS.make("kram", {}, "aggregation.fallback")
    with pytest.raises(PluginError, match=r"^exchange\.codec: no codec named 'zip'"):
        CODECS.make("zip")


def test_a_plug_in_of_an_earlier_version_still_works(package):
    rule: Any = AGGREGATORS.make("old")
    assert rule.ready
    assert isinstance(rule, Aggregator)
    with pytest.raises(SpecError, match=r"^aggregation\.pre\.1\.options\.g: unknown key"):
        AGGREGATORS.make("old", {"g": 1}, "aggregation.pre.1")


def test_what_is_not_of_the_kind_is_refused_in_words(package):
    with pytest.raises(PluginError, match=r"'no-rule' is not a subclass of covey\.aggregation\.contract\.Aggregator"):
        AGGREGATORS.load("no-rule")
    with pytest.raises(PluginError, match="'broken' cannot be loaded: No module named 'no_such_module'"):
        AGGREGATORS.load("broken")
    with pytest.raises(PluginError, match=r"'house_rules:Old' is not a subclass of covey\.learning\.task\.Task"):
        TASKS.load("house_rules:Old", allow_path=True)


def test_a_path_is_a_name_only_where_that_is_allowed():
    path = "covey.learning.tasks.digits:Digits"
    assert TASKS.load(path, allow_path=True) is TASKS.load("digits")
    with pytest.raises(PluginError, match="no task named 'covey"):
        TASKS.load(path)


def test_a_plug_in_that_does_not_say_what_it_can_is_known_by_its_methods(package):
    assert TASKS.load("silent").own_fit


@pytest.mark.parametrize(
    ("contract", "method", "attribute"),
    [
        (Task, "fit", "own_fit"),
        (Task, "keys", "has_keys"),
        (Task, "eval_data", "has_eval_data"),
        (Codec, "summary", "summarises"),
        (Codec, "per_example", "private"),
        (Codec, "privacy", "private"),
    ],
)
def test_a_class_says_what_it_can(contract, method, attribute):
    assert getattr(contract, attribute) is False
    own = {method: lambda self, *arguments: None}
    mine = type("Mine", (contract,), own)
    assert getattr(mine, attribute) is True
    assert getattr(type("Heir", (mine,), {}), attribute) is True
    assert getattr(type("Mixed", (type("Mixin", (), own), contract), {}), attribute) is True
    with pytest.raises(TypeError, match=f"Mine has its own `{method}` and says `{attribute} = False`"):
        type("Mine", (contract,), {**own, attribute: False})


def test_a_heir_of_a_class_that_declared_may_override_again():
    class Louder(StoSign):
        def summary(self, readers, context):
            return super().summary(readers, context)

    assert Louder.summarises


RUN = """
name = "r"
mode = "MODE"
[task]
name = "digits"
[exchange]
codec = "int8"
[exchange.options]
wrong = 1
[aggregation]
name = "NAME"
options = { OPTIONS }
pre = [{ name = "bucketing" }, { name = "bucketing", options = { t = 2 } }]
fallback = { name = "krum", options = { g = 1 } }
[server_optimizer]
name = "adam"
options = { beta = 1 }
"""


def spec(mode="rounds", name="mean", options=""):
    return parse_toml(RUN.replace("MODE", mode).replace("NAME", name).replace("OPTIONS", options))


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: load_codec(spec().exchange), r"exchange\.options\.wrong"),
        (lambda: load_aggregator(spec()), r"aggregation\.pre\.1\.options\.t"),
        (lambda: load_aggregator(spec(options="f = 1")), r"aggregation\.options\.f"),
        (lambda: load_fallback(spec()), r"aggregation\.fallback\.options\.g"),
        (lambda: load_server_optimizer(spec()), r"server_optimizer\.options\.beta"),
    ],
)
def test_the_error_of_an_option_names_its_place_in_the_file(make, key):
    with pytest.raises(SpecError, match=f"^{key}: unknown key; known keys: "):
        make()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ('name = "krum", options = { g = 1 }', r"aggregation\.options\.rule\.options\.g: unknown key; known keys: "),
        ('name = "kram"', r"aggregation\.options\.rule\.name: no aggregator named 'kram'"),
        ('name = "fltrust"', r"aggregation\.options\.rule\.name: 'fltrust' needs trusted data"),
        ('name = "krum", options = { f = 9 }', r"aggregation\.options\.rule: 'krum' needs at least"),
    ],
)
@pytest.mark.parametrize("policy", ["buffered", "basgd"])
def test_the_error_of_a_rule_inside_a_rules_options_names_its_place(policy, rule, message):
    section = spec("async", policy, f"rule = {{ {rule} }}").aggregation
    with pytest.raises((SpecError, PluginError), match=f"^{message}"):
        ASYNC_POLICIES.make(section.name, section.options)


def test_what_is_made_in_code_names_the_contracts_section():
    with pytest.raises(SpecError, match=r"^aggregation\.options\.g: unknown key; known keys: f"):
        Krum({"g": 1})
    assert Krum({"f": 1}).place == "aggregation.options"
    assert Krum(Placed({}, "here.options")).place == "here.options"
    assert Krum().place == "aggregation.options"


def after_one_step(training, number=1):
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = local_optimizer([parameter], training, number, 4)
    parameter.sum().backward()
    optimizer.step()
    return parameter.tolist()


def test_an_installed_local_optimizer_has_its_own_options_and_the_runs_schedules(package):
    fields = {"optimizer": "signs", "learning_rate": 1.0, "options": {"momentum": 0.5}}
    assert after_one_step(TrainingSection(**fields)) == [-0.5, -0.5]
    assert after_one_step(TrainingSection(optimizer="signs", learning_rate=1.0)) == [-0.75, -0.75]  # not [training]'s
    halved = {number: Schedule(kind="alternating") for number in ("learning_rate", "momentum")}
    assert after_one_step(TrainingSection(**fields, schedule=halved), 2) == [-0.375, -0.375]
    with pytest.raises(SpecError, match=r"^training\.options\.beta: unknown key; known keys: momentum"):
        after_one_step(TrainingSection(optimizer="signs", options={"beta": 1}))


def test_an_installed_schedule_has_options_of_its_own(package):
    schedule = Schedule(kind="alternating", options={"low": 0.25}, warmup=1)
    assert [factor(schedule, number, 5) for number in range(1, 5)] == [0.5, 1.0, 0.25, 1.0]
    wrong = TrainingSection(schedule={"momentum": Schedule(kind="alternating", options={"high": 1})})
    with pytest.raises(SpecError, match=r"^training\.schedule\.momentum\.options\.high: unknown key; known keys: low"):
        after_one_step(wrong)


def test_an_installed_partition_cuts_the_data(package):
    section = DataSection(partition="stripes", options={"first": 1})
    assert [partition(section, part, 3, 0, examples=7).tolist() for part in range(3)] == [[1, 4], [2, 5], [0, 3, 6]]
    with pytest.raises(SpecError, match=r"^data\.options\.last: unknown key"):
        partition(DataSection(partition="stripes", options={"last": 1}), 0, 3, 0, examples=7)


def test_a_partition_that_loses_examples_is_refused(package):
    with pytest.raises(SpecError, match=r'^data\.partition: "leaky" cut 7 examples into 3 parts with 6 '):
        partition(DataSection(partition="leaky"), 0, 3, 0, examples=7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: after_one_step(TrainingSection(optimizer="lion")),
            r"training\.optimizer: no local-optimizer named 'lion' is installed here; installed: adam, adamw, m",
        ),
        (
            lambda: factor(Schedule(kind="sine"), 1, 2, "training.schedule.momentum"),
            r"training\.schedule\.momentum\.kind: no schedule named 'sine' is .*: constant, cosine, exponential, ",
        ),
        (
            lambda: partition(DataSection(partition="random"), 0, 2, 1, examples=4),
            r"data\.partition: no partition named 'random' is .*: dirichlet, iid, key, local, shards",
        ),
    ],
)
def test_an_unknown_part_of_training_is_refused_with_the_installed_ones(make, message):
    with pytest.raises(PluginError, match=f"^{message}"):
        make()


def test_an_option_that_is_a_key_of_the_section_is_not_taken_twice():
    with pytest.raises(SpecError, match=r"^training\.options\.momentum: write it as training\.momentum$"):
        after_one_step(TrainingSection(optimizer="momentum", options={"momentum": 0.5}))
    with pytest.raises(SpecError, match=r"^data\.options\.alpha: write it as data\.alpha$"):
        partition(DataSection(partition="dirichlet", options={"alpha": 1.0}), 0, 2, 1, examples=4)
    with pytest.raises(SpecError, match=r"^data\.options\.beta: unknown key; known keys: alpha$"):
        partition(DataSection(partition="dirichlet", options={"beta": 1.0}), 0, 2, 1, examples=4)


def test_import_paths_count_where_the_operator_allows_them():
    path = "covey.aggregation.krum:Krum"
    with pytest.raises(PluginError, match="no aggregator named"):
        AGGREGATORS.load(path)
    with by_path(True):
        assert AGGREGATORS.load(path) is Krum
        with pytest.raises(PluginError, match="not a subclass"):
            AGGREGATORS.load("collections:OrderedDict")
    with by_path(False), pytest.raises(PluginError, match="no aggregator named"):
        AGGREGATORS.load(path)
