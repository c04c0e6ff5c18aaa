"""What a specification's mode decides: its model, its facts, and the sections and keys that it reads."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from covey.errors import SpecError
from covey.plugins import GROUPS
from covey.spec import AsyncSpec, GossipSpec, RoundsSpec, parse_json, parse_toml
from covey.spec.modes import MODELS, mode_named
from tests.unit.test_spec import LEAST, refused

STORED = (
    '{"aggregation":{"fallback":null,"name":"mean","options":{},"pre":[],"root_examples":100},'
    '"async":{"deadline_s":600.0,"max_staleness":null,"min_nodes":1,"updates":7},"data":{"alpha":0.5,'
    '"partition":"iid","parts":null,"shards_per_node":2},"evaluation":{"batch_size":512,"every":1,'
    '"goal":"max","metric":"accuracy","where":"auto"},"exchange":{"codec":"none","downlink":"auto",'
    '"error_feedback":null,"options":{},"payload":"delta","share":["*"],"worker_momentum":0.0},'
    '"keep":{"updates":1,"versions":3},"method":{"name":"none","options":{}},"mode":"MODE","name":"r",'
    '"rounds":{"count":3,"deadline_s":600.0,"hard_deadline_s":3600.0,"max_retries":3,"min_nodes":1,'
    '"participants":1.0,"quorum":1.0,"rejoin_s":30.0,"short":"wait"},"seed":0,'
    '"server_optimizer":{"name":"sgd","options":{}},"task":{"name":"digits","options":{}},'
    '"training":{"batch_size":32,"betas":[0.9,0.999],"clip_norm":null,"deterministic":"best-effort",'
    '"learning_rate":0.1,"local_epochs":1,"local_steps":null,"momentum":0.9,"nesterov":false,'
    '"optimizer":"sgd","precision":"float32","schedule":{},"threads":1,"weight_decay":0.0},'
    '"weights":{"by":"examples","max_share":0.5}}'
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[gossip]\nsteps = 0", "gossip.steps"),
        ("[gossip]\nprotocol = 3", "gossip.protocol"),
        ("[gossip]\nglobal_spread = 0.5", "gossip.global_spread: it says nothing without global_every"),
        ("[gossip]\nglobal_every = 2\nglobal_spread = 1.0", "gossip.global_spread"),
        ("[gossip]\nmomentum_beta = 0.5", "gossip.momentum_beta: it says nothing without momentum"),
        ("[gossip]\nmomentum_nesterov = true", "gossip.momentum_nesterov: it says nothing without momentum"),
        ("[gossip]\nouter_every = 6", "gossip.outer_every: it says nothing without outer"),
        ("[rounds]\ncount = 5", 'rounds: mode "gossip" does not read this section'),
        ('[aggregation]\nname = "krum"', 'aggregation: mode "gossip" does not read this section'),
        ('[exchange]\npayload = "parameters"', 'exchange.payload: mode "gossip" does not read this key'),
        ("[exchange]\nerror_feedback = false", 'exchange.error_feedback: mode "gossip" does not read this key'),
    ],
)
def test_what_gossip_does_not_do_is_refused_by_its_key(text, words):
    assert words in refused("", f'mode = "gossip"\n{LEAST}\n{text}')


def test_a_run_on_record_goes_on_with_keys_that_nothing_reads():
    spec = parse_toml(f'mode = "gossip"\n{LEAST}')
    given = json.loads(spec.to_json())
    given["gossip"] |= {"momentum_beta": 0.5, "global_spread": 0.5}
    old = parse_json(json.dumps(given))
    assert isinstance(old, GossipSpec)
    assert (old.gossip.momentum_beta, old.gossip.global_spread) == (0.5, 0.5)
    keys = {"gossip.momentum_beta", "gossip.global_spread"}
    assert {key for key, _, _ in old.impossible()} == keys  # who submits it anew is told


def test_an_unknown_mode_is_refused_by_its_key_with_the_choices():
    choices = "mode: Input should be 'rounds' or 'async' or 'gossip'"
    assert refused("", f'mode = "round"\n{LEAST}') == f'{choices} (given: "round")'
    assert refused("", f"mode = 3\n{LEAST}") == f"{choices} (given: 3)"
    with pytest.raises(SpecError, match=r"^mode: Input should be"):
        parse_json('{"name": "r", "mode": null, "task": {"name": "t"}}')


def test_an_asynchronous_run_needs_as_many_nodes_as_either_section_says():
    assert parse_toml(f'mode = "async"\n{LEAST}[rounds]\nmin_nodes = 4').min_nodes == 4
    assert parse_toml(f'mode = "async"\n{LEAST}[rounds]\nmin_nodes = 4\n[async]\nmin_nodes = 6').min_nodes == 6


@pytest.mark.parametrize(
    ("mode", "model", "whole", "min_nodes", "deadline_s", "max_staleness"),
    [("rounds", RoundsSpec, 3, 2, 5.0, None), ("async", AsyncSpec, 70, 4, 6.0, 8)],
)
def test_a_mode_has_a_model_that_says_what_callers_ask(mode, model, whole, min_nodes, deadline_s, max_staleness):
    rounds = "[rounds]\ncount = 3\nmin_nodes = 2\ndeadline_s = 5\n"
    policy = "[async]\nupdates = 70\nmin_nodes = 4\ndeadline_s = 6\nmax_staleness = 8\n"
    spec = parse_toml(f'mode = "{mode}"\n{LEAST}{rounds if mode == "rounds" else policy}')
    assert type(spec) is model
    assert (spec.rounds_in_all, spec.min_nodes, spec.deadline_s, spec.max_staleness) == (
        whole,
        min_nodes,
        deadline_s,
        max_staleness,
    )
    assert mode_named(mode) is spec.facts
    assert spec.facts.name == mode == spec.mode


def test_the_facts_of_a_mode_fit_its_model():
    for name, model in MODELS.items():
        facts, field_of = mode_named(name), {f.alias or key: f for key, f in model.model_fields.items()}
        section: Any = field_of[facts.section].annotation
        assert get_args(model.model_fields["mode"].annotation) == (name,)
        assert facts.count_key in section.model_fields
        assert facts.rule_kind in GROUPS


@pytest.mark.parametrize(
    ("name", "text"), [("", "'rounds' or 'async' or 'gossip'"), ("ring", "'rounds' or 'async' or 'gossip'")]
)
def test_a_mode_that_a_record_cannot_have_is_refused_in_words(name, text):
    with pytest.raises(SpecError, match=f"mode: .*{text}"):
        mode_named(name)


@pytest.mark.parametrize("mode", ["rounds", "async"])
def test_stored_json_has_the_sections_of_both_first_modes_as_it_always_had(mode):
    """Golden: the canonical JSON of earlier versions; hashes and statements depend on its bytes."""
    read = {"rounds": "[rounds]\ncount = 3\n", "async": "[async]\nupdates = 7\n"}[mode]
    stored = STORED.replace('"updates":7', '"updates":1000' if mode == "rounds" else '"updates":7')
    stored = stored.replace('"count":3', '"count":20' if mode == "async" else '"count":3').replace("MODE", mode)
    text = f'mode = "{mode}"\n{LEAST}{read}[weights]\nmax_share = 0.5'
    assert parse_toml(text).to_json() == stored
    assert parse_json(STORED.replace("MODE", mode)).to_json() == STORED.replace("MODE", mode)


def test_an_asynchronous_run_has_its_section_and_its_own_refusals():
    spec = parse_toml(f'mode = "async"\n{LEAST}\n[async]\nupdates = 7\n')
    assert isinstance(spec, MODELS["async"])
    assert spec.rounds_in_all == 7
    assert parse_json(spec.to_json()) == spec
    assert "async.update: unknown key; known keys: deadline_s, max_" in refused("[async]\nupdate = 1")


@pytest.mark.parametrize(
    ("mode", "extra", "message"),
    [
        (
            "async",
            "[rounds]\ncount = 20",
            'rounds.count: a run of mode "async" does not read it; write [async] updates',
        ),
        ("async", "[rounds]\nquorum = 0.5\nmin_nodes = 2", 'rounds.quorum: a run of mode "async" does not read it'),
        ("rounds", "[async]\nupdates = 1000", 'async.updates: a run of mode "rounds" does not read it'),
    ],
)
def test_what_the_mode_does_not_read_is_refused_even_where_it_is_the_default(mode, extra, message):
    assert message in refused(extra, f'mode = "{mode}"\n{LEAST}')


def test_all_that_is_wrong_with_a_gossip_run_is_said_at_once() -> None:
    """Values that cannot be, and sections that are not read."""
    text = (
        'name = "x"\nmode = "gossip"\n[task]\nname = "digits"\n[gossip]\nsteps = 0\n[keep]\nversions = 3\n'
        '[rounds]\ncount = 3\n[server_optimizer]\nname = "adam"\n'
    )
    with pytest.raises(SpecError) as caught:
        parse_toml(text)
    for key in ("gossip.steps: ", "keep: ", "rounds: ", "server_optimizer: "):
        assert str(caught.value).count(key) == 1, str(caught.value)
    with pytest.raises(SpecError) as caught:
        parse_toml(text.replace("steps = 0", "steps = 1"))
    for key in ("keep: ", "server_optimizer: "):
        assert str(caught.value).count(key) == 1, str(caught.value)
