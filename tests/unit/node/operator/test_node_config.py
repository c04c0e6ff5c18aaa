import json
import tomllib

import pytest

from covey.errors import PolicyError, SpecError
from covey.messages import GossipMember, GossipOrder
from covey.node.gossip_handed import terms_of
from covey.node.operator.config import NodeConfig, NodeSettings, read_settings
from covey.node.operator.default_settings import DEFAULT_SETTINGS
from covey.node.operator.policy import BUILT_IN_TASKS
from covey.spec import AsyncSpec, ExchangeSection, GossipSpec, RoundsSpec, TaskSection, parse_json


def config(tmp_path, text=None):
    if text is not None:
        (tmp_path / "node.toml").write_text(text)
    return NodeConfig.load(tmp_path)


def spec(task="digits", payload="delta", codec="none"):
    return RoundsSpec(name="r", task=TaskSection(name=task), exchange=ExchangeSection(payload=payload, codec=codec))


def test_without_a_file_the_built_in_tasks_are_allowed(tmp_path):
    found = config(tmp_path)
    assert found.policy.tasks == BUILT_IN_TASKS
    assert (found.paths, found.options, found.device, found.server) == ({}, {}, "auto", None)
    for task in BUILT_IN_TASKS:
        found.check_run(spec(task))


def test_what_a_coordinator_s_record_asks_above_the_bounds_is_not_computed(tmp_path):
    asked = json.loads(spec().to_json()) | {"rounds": {"count": 10**9}}
    config(tmp_path).check_run(parse_json(json.dumps(asked)))  # many rounds cost a node nothing
    asked |= {"training": {"local_steps": 10**9}}
    with pytest.raises(PolicyError, match=r"training\.local_steps: at most 1,000,000 \(given: 1,000,000,000\)"):
        config(tmp_path).check_run(parse_json(json.dumps(asked)))


def test_the_default_file_is_the_default():
    assert NodeSettings.model_validate(tomllib.loads(DEFAULT_SETTINGS)) == NodeSettings()


def test_the_comments_of_the_default_file_are_valid_settings():
    lines = [line.removeprefix("# ") if " = " in line else line for line in DEFAULT_SETTINGS.splitlines()]
    settings = NodeSettings.model_validate(tomllib.loads("\n".join(lines)))
    assert settings.policy.tasks == BUILT_IN_TASKS
    assert settings.policy.allow_paths == ("my_package.tasks:Tumours",)
    assert settings.data.paths == {"images": "/srv/images"}


def test_settings_are_read(tmp_path):
    found = config(
        tmp_path,
        '[policy]\ntasks = ["digits"]\nallow_paths = ["a.b:C"]\npayloads = ["delta"]\n'
        '[data.paths]\nimages = "/srv"\n[data.options]\nlimit = 3\n',
    )
    assert found.paths == {"images": "/srv"}
    assert found.options == {"limit": 3}
    found.check_run(spec("digits"))
    found.check_run(spec("a.b:C"))
    assert found.allows_path("a.b:C")
    assert not found.allows_path("a.b:D")
    assert not found.allows_path("digits")
    assert found.allows_paths(spec("a.b:C"))
    assert not found.allows_paths(spec("a.b:C", codec="a.b:D"))
    assert not found.allows_paths(spec("digits"))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (spec("idx-images"), r"'idx-images' is not allowed.*allowed: digits.*\[policy\] tasks in node.toml"),
        (spec("digits", codec="my.codecs:Half"), r"exchange.codec .my.codecs:Half. is not allowed.*allow_paths"),
        (spec("a.b:C"), r"'a.b:C' is not allowed.*\[policy\] allow_paths in node.toml"),
        (spec(payload="parameters"), r"'parameters' is not allowed.*allowed: delta.*payloads in node.toml"),
    ],
)
def test_a_run_that_asks_for_more_is_declined_with_what_to_change(tmp_path, asked, message):
    found = config(tmp_path, '[policy]\ntasks = ["digits"]\npayloads = ["delta"]\n')
    with pytest.raises(PolicyError, match=message):
        found.check_run(asked)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[policy]\ntask = []",
            "node.toml: policy.task: unknown key; known keys: allow_paths, days, hours, label_counts, least_noise, "
            "max_delta, max_epsilon, max_runs, min_k, min_participants, outgoing, payloads, representations, "
            "scrub_paths, share_logs, tasks, time_zone",
        ),
        ("[polity]\n", r"polity: unknown key; known keys: data, limits, peers, policy, worker"),
        ("[data]\nimages = 1", r"data.images: unknown key; known keys: options, paths"),
        ('[policy]\npayloads = ["all"]', r"policy.payloads.0: .*'parameters', 'delta' or 'gradient'.*given: \"all\""),
        ('[policy]\ntasks = "digits"', r"policy.tasks: .*given: \"digits\""),
        ("[policy", r"node.toml is not valid TOML"),
    ],
)
def test_a_wrong_file_names_key_and_choices(tmp_path, text, message):
    with pytest.raises(SpecError, match=message):
        config(tmp_path, text)


GOSSIP = GossipSpec(name="r", mode="gossip", task=TaskSection(name="digits"))
ASYNC = AsyncSpec(name="r", mode="async", task=TaskSection(name="digits"))


def test_what_an_exchange_survives_holds_in_runs_that_a_coordinator_hands_out(tmp_path):
    run = GossipSpec(name="r", mode="gossip", task=TaskSection(name="digits"))
    members = (GossipMember("n0", "", "aa"), GossipMember("n1", "h:1", "bb", late=True, part=5))
    order = GossipOrder("run-1", run.to_json(), "cc", members)
    assert terms_of(config(tmp_path), run, order, "n0", rejoins=False).durability == "process"
    terms = terms_of(config(tmp_path, '[peers]\ndurability = "power"\n'), run, order, "n1", rejoins=True)
    assert (terms.durability, terms.rejoins, terms.founders, terms.part) == ("power", True, ("n0",), 5)
    with pytest.raises(SpecError, match=r"peers.durability: .*'process' or 'power'"):
        config(tmp_path, '[peers]\ndurability = "disk"\n')


def test_gossip_passes_filters_and_counts_its_members(tmp_path):
    config(tmp_path, '[policy]\nmin_participants = 3\noutgoing = [{ name = "clip-norm" }]\n').check_run(GOSSIP)


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "node.toml"
    path.write_bytes(b"\x80")
    with pytest.raises(SpecError, match="not a text file in UTF-8"):
        read_settings(path)


@pytest.mark.parametrize(
    ("text", "run", "message"),
    [
        ('hours = "22:00-06:00"', GOSSIP, r'mode "gossip" cannot keep .*\[policy\] hours in node.toml\): peers wait'),
        ('payloads = ["delta"]', GOSSIP, r"payload 'parameters' is not allowed on this node \(allowed: delta\)"),
        ("min_participants = 3", ASYNC, r"\[policy\] min_participants in node.toml\): each update counts by itself"),
    ],
)
def test_a_mode_that_cannot_keep_a_rule_is_declined(tmp_path, text, run, message):
    found = config(tmp_path, f"[policy]\n{text}\n")
    with pytest.raises(PolicyError, match=message):
        found.check_run(run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('hours = "22-6"', "'22-6' are no hours: write them as in"),
        ('time_zone = "Mars/Olympus"', "no time zone 'Mars/Olympus' is known here"),
        ('days = ["monday"]', "policy.days.0"),
        ("min_participants = 0", "policy.min_participants"),
    ],
)
def test_rules_that_cannot_be_are_refused(tmp_path, text, message):
    with pytest.raises(SpecError, match=message):
        config(tmp_path, f"[policy]\n{text}\n")
