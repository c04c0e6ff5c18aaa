"""Combinations that are refused at submission, asked of the worker's own operation."""

import contextlib
import re
from dataclasses import replace

import pytest
import torch

from covey.errors import PluginError, SpecError
from covey.learning.privacy import spent_by
from covey.spec import PrivacySection, TrainingSection, parse_json, parse_toml, written_in
from covey.worker.execute.coordinator_ops import describe
from covey.worker.jobs.runs import DescribeJob
from covey.worker.program.host import Host


def described(policy, exchange, mode="async", extra=""):
    text = f"""
name = "r"
mode = "{mode}"
[task]
name = "digits"
options = {{ hidden = 4 }}
[training]
local_steps = 1
[exchange]
{exchange}
[aggregation]
name = "{policy}"
{extra}
"""
    return describe(DescribeJob(parse_toml(text).to_json()), Host(torch.device("cpu")))


@pytest.mark.parametrize(
    ("codec", "why"),
    [
        ("qsgd", "what 'qsgd' draws at random drowns"),
        ("random-k", "what 'random-k' draws at random drowns"),
        ("top-k", "what 'top-k' loses of each drowns"),
        ("scaled-sign", "what 'scaled-sign' loses of each drowns"),
    ],
)
def test_a_policy_that_compares_gradients_needs_them_whole(codec, why):
    exchange = f'payload = "gradient"\ncodec = "{codec}"\nerror_feedback = false'
    with pytest.raises(SpecError, match=f'^exchange.codec: this policy takes differences.*{why}.*"bf16"$'):
        described("kardam", exchange)
    described("kardam", exchange.replace(codec, "bf16"))
    described("buffered", exchange)


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        ("buffered", 'parameters of an old version cannot be .*; choose "delta" or "gradient"'),
        ("kardam", 'this policy bounds how fast a gradient changes .*; choose "gradient".*'),
    ],
)
def test_parameters_are_only_for_a_policy_that_mixes_them(policy, text):
    with pytest.raises(SpecError, match=f"^exchange.payload: {text}$"):
        described(policy, 'payload = "parameters"')
    described("staleness-mean", 'payload = "parameters"')
    described("mean", 'payload = "parameters"', mode="rounds")


@pytest.mark.parametrize("rule", ["smea", "minimum-diameter"])
@pytest.mark.parametrize(
    ("rounds", "fewest"), [("min_nodes = 18", 18), ("min_nodes = 9\nparticipants = 20\nquorum = 0.9", 18)]
)
def test_a_rule_that_tries_every_subset_is_refused_where_there_are_always_too_many(rule, rounds, fewest):
    options = f"options = {{ f = 4, max_subsets = 1000 }}\n[rounds]\n{rounds}"
    text = rf"^aggregation.options: a round has at least {fewest} updates, and 18 updates with f = 4 have 3060 subsets"
    with pytest.raises(SpecError, match=text):
        described(rule, "", mode="rounds", extra=options)
    described(rule, "", mode="rounds", extra=options.replace("1000", "3060"))
    described(rule, "", mode="rounds", extra=f'{options}\n[aggregation.fallback]\nname = "median"')


def test_bucketing_leaves_a_rule_fewer_rows_to_choose_from():
    options = "options = { f = 4, max_subsets = 1000 }\n[rounds]\nmin_nodes = 18"
    before = '\n[[aggregation.pre]]\nname = "bucketing"\noptions = { s = 2 }'
    described("smea", "", mode="rounds", extra=options + before)


def test_losses_belong_to_local_training():
    with pytest.raises(
        SpecError, match=r"^exchange.payload: 'q-fedavg' goes by .*; choose \"delta\" or \"parameters\"$"
    ):
        described("q-fedavg", 'payload = "gradient"', mode="rounds")
    described("q-fedavg", 'payload = "parameters"', mode="rounds")


LEAST = 'name = "r"\n[task]\nname = "digits"\noptions = { hidden = 4 }\n'


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ('[training]\noptimizer = "lion"', "training.optimizer: no local-optimizer named 'lion' .*: adam, adamw, mom"),
        ('[data]\npartition = "random"', "data.partition: no partition named 'random' .*: dirichlet, iid, key, local"),
        (
            '[training.schedule.weight_decay]\nkind = "sine"',
            "training.schedule.weight_decay.kind: no schedule named 'sine' .*: constant, cosine, exponential, linear",
        ),
        ('[exchange]\ncodec = "zip"', "exchange.codec: no codec named 'zip' .*: bf16, "),
    ],
)
@pytest.mark.parametrize("mode", ["rounds", "async"])
def test_a_name_that_is_not_installed_is_refused_with_the_installed_ones(mode, extra, message):
    rule = '[aggregation]\nname = "buffered"\n' if mode == "async" else ""
    spec = parse_toml(f'mode = "{mode}"\n{LEAST}{rule}{extra}\n')
    with pytest.raises(PluginError, match=f"^{message}"):
        describe(DescribeJob(spec.to_json()), Host(torch.device("cpu")))


def test_keys_need_a_task_that_has_them():
    spec = parse_toml(f'{LEAST}[data]\npartition = "key"\n')
    with pytest.raises(SpecError, match=r'^data\.partition: "key" needs a task that names the owner of each example'):
        describe(DescribeJob(spec.to_json()), Host(torch.device("cpu")))


@pytest.mark.parametrize(("mode", "kind"), [("rounds", "aggregator"), ("async", "async-policy")])
def test_the_mode_says_which_kind_the_section_aggregation_names(mode, kind):
    spec = parse_toml(f'mode = "{mode}"\n{LEAST}[aggregation]\nname = "mode"\n')
    with pytest.raises(PluginError, match=f"^aggregation.name: no {kind} named 'mode' is installed here"):
        describe(DescribeJob(spec.to_json()), Host(torch.device("cpu")))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[training]\nmomentum = 0.9", 'training.momentum: "sgd" does not read it, but "momentum" does'),
        ('[training]\noptimizer = "adam"\nnesterov = true', 'training.nesterov: "adam" does not read it'),
        ("[data]\nalpha = 0.5", 'data.alpha: "iid" does not read it, but "dirichlet" does'),
        ('[data]\npartition = "local"\nparts = 3', "data.parts: "),
        ("[aggregation]\nroot_examples = 50", "aggregation.root_examples: 'mean' takes no trusted examples"),
        (
            '[training.schedule.learning_rate]\nkind = "cosine"\nevery = 2',
            'training.schedule.learning_rate.every: "cosine" does not read it, but "step" does',
        ),
    ],
)
def test_what_nothing_reads_is_refused_where_the_user_wrote_it(text, said):
    whole = f'name = "r"\n[task]\nname = "digits"\n{text}\n'
    job = DescribeJob(parse_toml(whole).to_json(), written=written_in(whole))
    with pytest.raises(SpecError) as caught:
        describe(job, Host(torch.device("cpu")))
    assert said in str(caught.value)
    describe(replace(job, written=()), Host(torch.device("cpu")))  # a run from before is taken up as it is


ALL_AT_ONCE = """
name = "r"
[task]
name = "digits"
options = { hidden = 4 }
[training]
weight_decay = 0.1
momentum = 0.5
[exchange]
payload = "gradient"
codec = "sign"
[method]
name = "fedprox"
[rounds]
participants = 2.5
[data]
partition = "nope"
[async]
updates = 4
"""


def test_everything_that_cannot_work_is_said_in_one_message():
    spec = parse_toml(ALL_AT_ONCE, later=True)
    job = DescribeJob(spec.to_json(), submitted=True, written=written_in(ALL_AT_ONCE))
    with pytest.raises(SpecError) as caught:
        describe(job, Host(torch.device("cpu")))
    for said in (
        "rounds.participants: a fraction is at most 1.0",
        'training.local_steps: payload "gradient" needs local_steps = 1',
        'training.weight_decay: with payload "gradient"',
        'training.momentum: "sgd" does not read it',
        'exchange.payload: at the base model the term of "fedprox" has no gradient',
        "exchange.codec: 'sign' sends signs only",
        "weights.by: every vote counts the same",
        "data.partition: no partition named 'nope'",
        'async.updates: a run of mode "rounds" does not read it',
    ):
        assert str(caught.value).count(said) == 1


def test_what_is_not_submitted_is_refused_as_it_is_read():
    with pytest.raises(SpecError, match="a fraction is at most"):
        parse_toml(ALL_AT_ONCE)
    with pytest.raises(SpecError, match="a fraction is at most"):  # a node, of an assignment
        parse_json(parse_toml(ALL_AT_ONCE, later=True).to_json())


def private(unit="example", extra="", training="local_steps = 2", privacy="", stop="", mode="rounds", task=""):
    weights = '[weights]\nby = "equal"' if unit == "node" and "[weights]" not in extra else ""
    text = f"""
name = "r"
mode = "{mode}"
[task]
name = "digits"
options = {{ hidden = 4{task} }}
[training]
{training}
[privacy]
unit = "{unit}"
clip = 1.0
noise = 1.0
{privacy}
[stop]
{stop}
{weights}
{extra}
"""
    job = DescribeJob(parse_toml(text, later=True).to_json(), written=written_in(text))
    return describe(job, Host(torch.device("cpu")))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"mode": "async", "extra": '[aggregation]\nname = "buffered"'}, "privacy: its account goes by rounds"),
        ({"extra": '[method]\nname = "scaffold"'}, "method.name: 'scaffold' sends more than one vector"),
        ({"extra": '[method]\nname = "fedprox"'}, "method.name: 'fedprox' changes the training"),
        ({"extra": '[exchange]\npayload = "gradient"', "training": "local_steps = 1"}, "exchange.payload: .*one step"),
        ({"training": "clip_norm = 1.0"}, "training.clip_norm: each example's gradient is clipped"),
        ({"training": "workers = 1"}, "training.workers: training with privacy.unit"),
        ({"training": "batch_size = 8"}, "training.batch_size: each example is drawn by itself"),
        ({"extra": '[evaluation]\nwhere = "nodes"'}, "evaluation.where: what a node tells"),
        ({"unit": "node", "privacy": "sampling = 0.5"}, "privacy.sampling: which nodes take part is on record"),
        ({"unit": "node", "extra": '[weights]\nby = "examples"'}, "weights.by: .*equal"),
        ({"unit": "node", "extra": '[aggregation]\nname = "median"'}, "aggregation.name: the noise is for the mean"),
        ({"unit": "node", "extra": '[[aggregation.pre]]\nname = "bucketing"'}, "aggregation.pre: the noise is for"),
        ({"unit": "node", "extra": '[exchange]\ncodec = "dq-sgd"'}, "exchange.codec: 'dq-sgd' tells all nodes"),
        ({"stop": "epsilon = 0.1"}, "stop.epsilon: the first round alone would spend 6.57"),
    ],
)
def test_privacy_is_refused_where_it_would_not_hold(given, text):
    with pytest.raises(SpecError, match=text):
        private(**given)


def test_a_budget_needs_something_that_is_accounted_for():
    with pytest.raises(SpecError, match=r"stop\.epsilon: the run spends no privacy"):
        described("mean", "", mode="rounds", extra="[stop]\nepsilon = 1.0")


def test_a_budget_says_after_which_round_the_run_ends():
    assert private(stop="epsilon = 20.0").last_round == 5
    assert private(stop="epsilon = 1000.0").last_round is None
    ends = private("node", stop="epsilon = 5.0")
    assert (ends.last_round, ends.why_last) == (1, "one round more would spend more than [stop] epsilon = 5")


@pytest.mark.parametrize("unit", ["example", "node"])
def test_submission_says_what_a_run_will_have_spent(unit):
    section, training = PrivacySection(unit=unit, clip=1.0, noise=1.0), TrainingSection(local_steps=2)
    spent = [spent_by(section, training, rounds).epsilon for rounds in (1, 20)]
    whole = private(unit)
    assert (whole.privacy.rounds, whole.privacy.delta, whole.privacy.unit) == (20, 1e-5, unit)
    assert whole.privacy.epsilon == spent[1]
    (note,) = whole.notes
    assert (
        f"privacy: after 20 rounds, all of them, it has spent epsilon = {whole.privacy.epsilon:.3g} (delta = " in note
    )
    budget = spent[0] * 1.01
    short = private(unit, stop=f"epsilon = {budget}")
    assert (short.privacy.rounds, short.privacy.epsilon) == (1, spent[0])
    assert f"[stop] epsilon = {budget:g} ends the run after round 1 of 20, when it has spent" in short.notes[0]
    simulated = private(unit, privacy="reproducible = true")
    assert not simulated.privacy.is_secret
    assert "its noise is drawn from its seed, so that it is not private" in simulated.notes[0]
    assert described("mean", "", mode="rounds").privacy is None


DIGITS, NORMED = "digits", "tests.unit.worker.worker_tasks:Normed"
HAS_NONE = f"evaluation.where: task '{DIGITS}' gives nodes no evaluation data (Task.eval_data); it does with "


@pytest.mark.parametrize(
    ("task", "where", "own", "refused"),
    [
        (DIGITS, "nodes", "", True),
        (DIGITS, "nodes", "[task.nodes.anna]\nevaluate_on_nodes = true", False),
        (DIGITS, "auto", "", False),
        (NORMED, "nodes", "", False),  # its data may be there, or not
    ],
)
def test_nodes_are_not_asked_to_evaluate_without_data_for_it(task, where, own, refused):
    text = f'name = "r"\n[task]\nname = "{task}"\n{own}\n[evaluation]\nwhere = "{where}"'
    job = DescribeJob(parse_toml(text).to_json(), allow_path=True, submitted=True)
    with contextlib.nullcontext() if not refused else pytest.raises(SpecError, match=re.escape(HAS_NONE)):
        describe(job, Host(torch.device("cpu")))
    describe(replace(job, submitted=False), Host(torch.device("cpu")))  # on record it goes on


@pytest.mark.parametrize(("nodes", "refused"), [("", False), ('"anna", "ben"', False), ('"ben"', True)])
def test_a_run_that_only_evaluates_asks_somebody_who_has_data(nodes, refused):
    text = f"""name = "r"
[task]
name = "{DIGITS}"
nodes = {{ anna = {{ evaluate_on_nodes = true }} }}
[model]
initial = "run:a"
[rounds]
count = 1
[evaluation]
only = true
nodes = [{nodes}]
"""
    job = DescribeJob(parse_toml(text).to_json(), submitted=True)
    with (
        contextlib.nullcontext() if not refused else pytest.raises(SpecError, match=r"^evaluation\.only: task 'digits'")
    ):
        describe(job, Host(torch.device("cpu")))


def test_where_the_coordinator_evaluates_too_it_is_said_that_nodes_cannot():
    text = f'name = "r"\n[task]\nname = "{DIGITS}"\n[evaluation]\nwhere = "both"'
    (note,) = describe(DescribeJob(parse_toml(text).to_json(), submitted=True), Host(torch.device("cpu"))).notes
    assert note.startswith(HAS_NONE)
