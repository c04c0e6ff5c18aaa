import contextlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from covey.errors import SpecError
from covey.spec import RunSpec, Schedule, TrainingSection, above_bounds, parse_data, parse_json, parse_toml

LEAST = 'name = "r"\n[task]\nname = "digits"\n'
FULL = """
name = "Full.run_1-a"
mode = "rounds"
seed = 9223372036854775807
[task]
name = "package.module:Class"
options = { hidden = 64, deep = { list = [1, 2.5, "x", true] } }
[data]
partition = "dirichlet"
alpha = 0.1
parts = 12
[training]
optimizer = "adamw"
learning_rate = 1
betas = [0.8, 0.99]
local_steps = 5
clip_norm = 1.5
precision = "bf16"
deterministic = "require"
[training.schedule.learning_rate]
kind = "step"
factor = 0.5
every = 3
[exchange]
payload = "parameters"
share = ["*"]
[weights]
by = "equal"
max_share = 1
[evaluation]
every = 0
where = "nodes"
metric = "loss"
goal = "min"
[keep]
versions = 1
updates = 0
[rounds]
count = 3
participants = 4
min_nodes = 4
quorum = 0.5
deadline_s = 10
hard_deadline_s = 10
rejoin_s = 0
short = "fail"
"""


def refused(extra, least=LEAST):
    with pytest.raises(SpecError) as caught:
        parse_toml(least + extra)
    return str(caught.value)


def test_the_least_specification_has_the_documented_defaults():
    spec = parse_toml(LEAST)
    assert (spec.mode, spec.seed, spec.data.partition) == ("rounds", 0, "iid")
    assert (spec.training.local_epochs, spec.training.local_steps) == (1, None)
    assert (spec.method.name, spec.exchange.codec, spec.exchange.share) == ("none", "none", ("*",))
    assert (spec.aggregation.name, spec.server_optimizer.name) == ("mean", "sgd")
    assert (spec.rounds.count, spec.rounds.participants, spec.rounds.quorum) == (20, 1.0, 1.0)


def test_every_section_is_read():
    spec = parse_toml(FULL)
    assert spec.seed == 2**63 - 1
    assert spec.task.options == {"hidden": 64, "deep": {"list": [1, 2.5, "x", True]}}
    assert (spec.data.alpha, spec.data.parts) == (0.1, 12)
    assert (spec.training.local_epochs, spec.training.local_steps) == (None, 5)
    assert spec.training.schedule == {"learning_rate": Schedule(kind="step", factor=0.5, every=3)}
    assert (spec.evaluation.every, spec.evaluation.goal, spec.keep.updates) == (0, "min", 0)
    assert (spec.rounds.participants, spec.rounds.short) == (4, "fail")


def test_an_empty_training_section_trains_one_epoch_and_steps_replace_it():
    assert parse_toml(LEAST + "[training]\n").training.local_epochs == 1
    assert parse_toml(LEAST + "[training]\nlocal_steps = 3").training.local_epochs is None


def test_one_participant_and_all_of_them_are_told_apart():
    one, all_of_them = (parse_toml(LEAST + f"[rounds]\nparticipants = {text}") for text in ("1", "1.0"))
    for spec, kind in ((one, int), (all_of_them, float)):
        assert type(spec.rounds.participants) is kind
        assert type(parse_json(spec.to_json()).rounds.participants) is kind
    assert one.to_json() != all_of_them.to_json()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("[rounds]\ncounts = 3", "rounds.counts: unknown key; known keys: count, deadline_s, hard_deadline_s, max_re"),
        ("[round]\ncount = 3", "round: unknown key; known keys: aggregation, async, data, evaluation, exchange, "),
        ("colour = 1", "task.colour: unknown key; known keys: name, nodes, options"),
        (
            '[training.schedule.momentum]\nkind = "step"\nevry = 2',
            "training.schedule.momentum.evry: unknown key; known keys: every, factor, kind, options, warmup",
        ),
    ],
)
def test_an_unknown_key_is_named_with_the_known_ones(extra, message):
    assert message in refused(extra)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "name: this key is required; task: this key is required"),
        ('name = "r"\n[task]\n', "task.name: this key is required"),
        (LEAST + "[training.schedule.momentum]\n", "training.schedule.momentum.kind: this key is required"),
    ],
)
def test_a_missing_key_is_named(text, message):
    assert refused("", text) == message


@pytest.mark.parametrize(
    ("extra", "key", "said"),
    [
        ('[data]\npartition = ""', "data.partition", "at least 1 character"),
        ("[data]\nparts = 0", "data.parts", "greater than or equal to 1 (given: 0)"),
        ("[training]\nlearning_rate = 0", "training.learning_rate", "greater than 0 (given: 0)"),
        ("[training]\nlearning_rate = inf", "training.learning_rate", "finite number"),
        ("[training]\nclip_norm = nan", "training.clip_norm", "finite number"),
        ("[training]\nbetas = [0.9, 1.0]", "training.betas.1", "less than 1 (given: 1.0)"),
        ("[training]\nbetas = [0.9]", "training.betas.1", "this key is required"),
        ("[training]\nmomentum = nan", "training.momentum", ""),
        ('[training.schedule.lr]\nkind = "step"', "training.schedule.lr", "'learning_rate', 'momentum' or"),
        ('[exchange]\npayload = "weights"', "exchange.payload", "'parameters', 'delta' or 'gradient' (given: \"weigh"),
        ("[task.options]\nborn = 2020-01-01", "task.options.born", 'not a valid JSON value (given: "2020-01-01")'),
        ("[weights]\nmax_share = 1.5", "weights.max_share", "less than or equal to 1"),
        ('[rounds]\nparticipants = "all"', "rounds.participants", "valid number"),
        ("[rounds]\nparticipants = 0", "rounds.participants", "greater than 0"),
        ("[rounds]\nparticipants = nan", "rounds.participants", "greater than 0"),
        ("rounds = 3", "task.rounds", "unknown key"),
    ],
)
def test_a_wrong_value_is_named_with_the_choices_once(extra, key, said):
    message = refused(extra)
    assert message.startswith(f"{key}: ")
    assert said in message
    assert message.count(f"{key}: ") == 1


@pytest.mark.parametrize("name", ["", "a b", "../a", "-a", "a" * 101, "ä"])
def test_a_name_is_one_that_a_file_may_have(name):
    assert refused("", f'name = "{name}"\n[task]\nname = "t"\n').startswith("name: ")


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_fits_the_store(seed):
    assert refused("", f"seed = {seed}\n{LEAST}").startswith("seed: ")


@pytest.mark.parametrize(
    ("key", "most"),
    [
        ("training.local_steps", 1_000_000),
        ("training.local_epochs", 10_000),
        ("training.local_first", 1_000_000),
        ("training.gpu_memory_gib", 100_000),
        ("evaluation.local_rounds", 10_000),
        ("data.parts", 100_000),
        ("data.shards_per_node", 1000),
        ("rounds.count", 100_000_000),
        ("rounds.max_retries", 10_000),
    ],
)
def test_what_would_cost_a_node_without_bound_has_one(key, most):
    with pytest.raises(SpecError) as refused:
        parse_toml(f"{key} = {most + 1}\n{LEAST}")
    assert f"{key}: Input should be less than or equal to {most} (given: {most + 1})" in str(refused.value)
    parse_toml(f"{key} = {most}\n{LEAST}", later=True)


@pytest.mark.parametrize(
    ("mode", "asked"),
    [
        ("rounds", {"data": {"parts": 100_001, "shards_per_node": 1001}}),
        ("rounds", {"training": {"local_steps": 1_000_002, "local_first": 1_000_001}}),
        ("rounds", {"training": {"local_epochs": 10_001, "gpu_memory_gib": 1e300}}),
        ("rounds", {"rounds": {"count": 100_000_001, "max_retries": 10_001}}),
        ("async", {"async": {"updates": 100_000_001}}),
        ("gossip", {"gossip": {"steps": 100_000_001}}),
    ],
)
@pytest.mark.parametrize("later", [False, True])
def test_what_is_on_record_above_the_bounds_is_read_as_it_is(mode, asked, later):
    record = json.loads(parse_toml(f'mode = "{mode}"\n{LEAST}').to_json())
    for section, keys in asked.items():
        record[section] = ({} if section == "training" else record[section]) | keys
    spec = parse_json(json.dumps(record), later=later)
    assert parse_json(spec.to_json(), later=later) == spec
    above = {f"{section}.{key} {given:,}" for section, keys in asked.items() for key, given in keys.items()}
    assert {re.sub(r": at most .*\(given: (.*)\)", r" \1", line) for line in above_bounds(spec)} == above


def test_an_evaluation_on_record_above_its_bound_is_read_as_it_is():
    only = {
        "evaluation": {"only": True, "local_rounds": 10_001},
        "model": {"initial": "run:a@7"},
        "rounds": {"count": 1},
    }
    spec = parse_json(json.dumps({"name": "r", "mode": "rounds", "task": {"name": "digits"}, **only}))
    assert list(above_bounds(spec)) == ["evaluation.local_rounds: at most 10,000 (given: 10,001)"]


def test_every_wrong_key_is_told_in_one_message():
    message = refused('[rounds]\ncount = 0\nquorum = 2\n[data]\nalpha = "x"')
    assert [line.partition(":")[0] for line in message.split("; ")] == ["data.alpha", "rounds.count", "rounds.quorum"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            "[training]\nlocal_epochs = 1\nlocal_steps = 2",
            "training.local_steps: give local_epochs or local_steps, not both (given: 2)",
        ),
        (
            "[rounds]\nparticipants = 2.0",
            "rounds.participants: a fraction is at most 1.0; write a number of nodes as an integer (given: 2.0)",
        ),
        (
            "[rounds]\nparticipants = 2\nmin_nodes = 3",
            "rounds.participants: fewer than min_nodes = 3: no round could ever close (given: 2)",
        ),
        (
            "[rounds]\ndeadline_s = 20\nhard_deadline_s = 10",
            "rounds.hard_deadline_s: earlier than deadline_s = 20 (given: 10.0)",
        ),
        (
            '[exchange]\npayload = "gradient"',
            'training.local_steps: payload "gradient" needs local_steps = 1: one gradient, no local training',
        ),
        (
            '[training]\nlocal_steps = 2\n[exchange]\npayload = "gradient"',
            'training.local_steps: payload "gradient" needs local_steps = 1: one gradient, no local training '
            "(given: 2)",
        ),
        (
            '[training]\nlocal_steps = 1\noptimizer = "adam"\n[exchange]\npayload = "gradient"',
            'training.optimizer: with payload "gradient" the node takes no step; choose "sgd" (given: "adam")',
        ),
        (
            "[training]\nlocal_steps = 3\nlocal_first = 3",
            "training.local_first: no step would be left for what is shared; choose fewer than local_steps (given: 3)",
        ),
    ],
)
def test_an_impossible_combination_names_the_key_to_change(extra, message):
    assert refused(extra) == message


def test_examples_decide_unless_a_cap_is_asked_for_and_a_cap_that_binds_is_known():
    weights = parse_toml(LEAST).weights
    assert (weights.max_share, weights.capped({"a": (900, 0.9), "b": (100, 0.1)})) == (1.0, {})
    capped = parse_toml(LEAST + "[weights]\nmax_share = 0.5").weights
    assert capped.capped({"a": (900, 0.5), "b": (100, 0.5)}) == {"a": 0.9}
    assert capped.capped({"a": (900, 0.3), "b": (100, 0.7)}) == {}, "a rule that goes by something else"
    assert (
        capped.capped({"a": (100, 0.5), "b": (100, 0.5)}) == capped.capped({}) == capped.capped({"a": (0.0, 1)}) == {}
    )
    equal = parse_toml(LEAST + '[weights]\nby = "equal"\nmax_share = 0.5').weights
    assert equal.capped({"a": (900, 0.5), "b": (100, 0.5)}) == {}


def test_options_of_a_plug_in_beside_a_sections_own_keys_are_stored_where_there_are_any():
    text = LEAST + '[training]\noptimizer = "lion"\n[training.options]\nbeta = 0.5\n[data]\npartition = "by-year"\n'
    spec = parse_toml(text)
    assert spec.training.options == {"beta": 0.5}
    stored = json.loads(spec.to_json())
    assert stored["training"]["options"] == {"beta": 0.5}
    assert "options" not in stored["data"]
    assert parse_json(spec.to_json()) == spec


def test_the_base_of_all_modes_is_not_a_specification():
    with pytest.raises(TypeError, match="abstract"):
        RunSpec(name="r", task={"name": "t"})  # type: ignore[abstract, call-arg]


def test_a_combination_is_refused_in_a_constructor_too():
    with pytest.raises(ValidationError, match="not both"):
        TrainingSection(local_epochs=1, local_steps=1)


def test_what_is_not_toml_or_json_is_refused():
    assert refused("[", LEAST).startswith("not valid TOML: ")
    with pytest.raises(SpecError, match="JSON"):
        parse_json("{")


def test_json_with_a_wrong_key_is_refused_like_toml():
    with pytest.raises(SpecError, match=r"rounds\.counts: unknown key"):
        parse_json('{"name": "r", "task": {"name": "t"}, "rounds": {"counts": 1}}')


@pytest.mark.parametrize("text", [LEAST, FULL])
def test_json_is_canonical_and_comes_back_the_same(text):
    spec = parse_toml(text)
    stored = spec.to_json()
    assert parse_json(stored) == spec
    assert parse_json(stored.encode()).to_json() == stored
    assert stored == json.dumps(json.loads(stored), sort_keys=True, separators=(",", ":"))


plain = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=20)
options = st.dictionaries(
    st.text(max_size=10),
    st.recursive(plain, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(), x)),
    max_size=4,
)
rounds = st.builds(
    dict,
    count=st.integers(1, 10**6),
    participants=st.floats(0, 1, exclude_min=True) | st.integers(1, 10**6),
    quorum=st.floats(0, 1, exclude_min=True),
    deadline_s=st.floats(1e-6, 3600),
    short=st.sampled_from(["wait", "fail"]),
)
training = st.builds(
    dict,
    optimizer=st.sampled_from(["sgd", "momentum", "adam", "adamw"]),
    learning_rate=st.floats(0, exclude_min=True, allow_infinity=False),
    betas=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2),
    clip_norm=st.none() | st.floats(1e-9, 1e9),
) | st.builds(dict, local_steps=st.integers(1, 10**6), precision=st.sampled_from(["float32", "bf16"]))


@given(rounds=rounds, training=training, options=options, seed=st.integers(0, 2**63 - 1))
def test_any_specification_survives_the_store_and_the_wire(rounds, training, options, seed):
    spec = parse_data(
        {"name": "r", "seed": seed, "rounds": rounds, "training": training, "task": {"name": "t", "options": options}}
    )
    again = parse_json(spec.to_json())
    assert again == spec
    assert type(again.rounds.participants) is type(spec.rounds.participants)
    assert again.to_json() == spec.to_json()


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    for parse in (parse_toml, parse_json):
        with contextlib.suppress(SpecError):
            parse(text)


@pytest.mark.parametrize("text", ["x = " + "[" * 5000, "a = 2020-13-01", "a = 1e999999\n[a]", "\ud800 = 1"])
def test_hostile_toml_is_refused(text):
    assert refused("", text).startswith("not valid TOML: ")


@pytest.mark.parametrize(
    ("rounds", "needed"),
    [("", 1), ("participants = 0.5", 1), ("participants = 3", 3), ("participants = 10\nquorum = 0.75", 8)],
)
def test_a_run_needs_as_many_nodes_as_its_quorum_takes_of_its_participants(rounds, needed):
    spec = parse_toml(f'name = "a"\n[task]\nname = "digits"\n[rounds]\n{rounds}\n')
    assert spec.min_nodes == needed
    assert parse_json(spec.to_json()).min_nodes == needed


def test_a_whole_specification_can_be_submitted_again_and_what_was_changed_in_it_is_looked_at():
    data = json.loads(parse_toml(f'mode = "async"\n{LEAST}[async]\nupdates = 7').to_json())
    assert parse_data(data).rounds_in_all == 7
    data["rounds"]["count"] = 3
    with pytest.raises(SpecError, match=r"rounds\.count"):
        parse_data(data)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LEAST + "[rounds]\ncounts = 3", "did you mean 'count'?"),
        (LEAST + "[round]\ncount = 3", "did you mean 'rounds'?"),
        (LEAST + 'mode = "async"', "did you mean 'mode' above the first [section]?"),
        (LEAST + "learning_rate = 0.1", "did you mean [training] learning_rate?"),
        ("count = 3\n" + LEAST, "did you mean [rounds] count?"),
        (LEAST + "[task.aggregation]\n", "did you mean the section [aggregation]?"),
        ('method = "scaffold"\n' + LEAST, 'method: write a section: [method] with name = "scaffold"'),
        (LEAST + '[aggregation]\nfallback = "mean"', '[aggregation.fallback] with name = "mean"'),
        (LEAST + '[aggregation]\npre = "bucketing"', "write a section for each: [[aggregation.pre]]"),
        (LEAST + "[training]\nbetas = 3", "training.betas: write a list: [...]"),
        (LEAST + '[exchange]\nshare = "x"', "exchange.share: write a list: [...]"),
        (LEAST + "options = 3", "task.options: write a section: [task.options]"),
    ],
)
def test_a_wrong_place_or_form_is_named_in_the_words_of_the_file(text, said):
    message = refused("", text)
    assert said in message
    assert not any(word in message for word in ("dictionary", "tuple", "instance", "Section", "a model"))


def test_all_that_a_gradient_rules_out_is_said_at_once():
    extra = '[exchange]\npayload = "gradient"\nshare = ["a"]\n[training]\nweight_decay = 1\noptimizer = "adam"'
    message = refused(extra)
    keys = ("training.local_steps", "training.weight_decay", "training.optimizer", "exchange.share")
    assert all(f"{key}: " in message for key in keys)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[stop]\nmin_delta = 0.1", "stop.min_delta: it says nothing without patience"),
        ("[stop]\ntarget = 0.9\n[evaluation]\nevery = 0", "stop.target: no version is evaluated"),
        ("[stop]\npatience = 0", "stop.patience"),
        ("[stop]\ntarget = nan", "stop.target"),
        ("[stop]\nbytes = 0", "stop.bytes"),
        ("[stop]\ntime_s = 0", "stop.time_s"),
    ],
)
def test_a_rule_that_could_never_end_a_run_is_refused(text, said):
    with pytest.raises(SpecError, match=re.escape(said)):
        parse_toml(f'name = "x"\n[task]\nname = "digits"\n{text}')


def test_among_peers_nobody_ends_the_run_for_all():
    text = 'name = "x"\nmode = "gossip"\n[task]\nname = "digits"\n[stop]\ntime_s = 5\ntarget = 0.5'
    with pytest.raises(SpecError, match=r"stop\.target: each node does its own steps.*stop\.time_s"):
        parse_toml(text)


def test_a_priority_is_bounded_and_left_out_where_it_is_the_default() -> None:
    assert "priority" not in parse_toml(LEAST).to_json()
    spec = parse_toml("priority = -100\n" + LEAST)
    assert spec.priority == -100
    assert parse_json(spec.to_json()) == spec
    for text in ("101", "-101", "1e300", '"high"', "9" * 400):
        with pytest.raises(SpecError, match="priority"):
            parse_toml(f"priority = {text}\n" + LEAST)
