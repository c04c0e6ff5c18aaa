"""A run's protocol: by its name or with options, what it means for the machine, and what it does not go with."""

from __future__ import annotations

from typing import Any

import pytest

from covey.errors import PluginError, SpecError
from covey.gossip.protocols.contract import PROTOCOLS
from covey.gossip.protocols.encoding import codec_refusals, is_encoded, training_spec
from covey.gossip.protocols.runs import impossible_in, notes_of, planner_of, policy_of, protocol_of, require_possible
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.spec import GossipSpec, parse_data, parse_json


def spec_of(**gossip: Any) -> GossipSpec:
    spec = parse_data({"name": "run", "mode": "gossip", "task": {"name": "digits"}, "gossip": gossip})
    assert isinstance(spec, GossipSpec)
    return spec


def test_a_protocol_without_options_is_stored_as_its_name() -> None:
    plain, table = spec_of(protocol="agp"), spec_of(protocol={"name": "agp"})
    assert plain == table
    assert '"protocol":"agp"' in plain.to_json()
    assert parse_json(plain.to_json()) == plain
    with_options = spec_of(protocol={"name": "mine", "options": {"f": 1}})
    assert '"protocol":{"name":"mine","options":{"f":1}}' in with_options.to_json()
    assert parse_json(with_options.to_json()) == with_options


def test_what_is_installed_has_the_numbers_that_it_had() -> None:
    sgp = policy_of(spec_of(steps=7, overlap=2, max_in_flight=3).gossip, 4)
    assert (sgp.steps, sgp.overlap, sgp.max_in_flight, sgp.correction) == (7, 2, 3, "none")
    agp = PushSumPolicy(7, None, 2, correction="elapsed")
    assert policy_of(spec_of(steps=7, protocol="agp").gossip, 4) == agp
    none = PushSumPolicy(7, None, 2, correction="none")
    assert policy_of(spec_of(steps=7, protocol="agp", rate_correction="none").gossip, 4) == none
    pairs = PushSumPolicy(7, None, 2, correction="asyspa", pairs=True)
    assert policy_of(spec_of(steps=7, protocol="ad-psgd", rate_correction="asyspa").gossip, 4) == pairs
    assert {"sgp", "agp", "ad-psgd"} <= {plugin.name for plugin in PROTOCOLS.installed()}


@pytest.mark.parametrize(
    ("gossip", "words"),
    [
        ({"protocol": "agp", "overlap": 2}, 'gossip.overlap: protocol "agp" never waits'),
        ({"protocol": "agp", "global_every": 2}, "gossip.global_every: nodes come to one mean in a known"),
        ({"protocol": "ad-psgd", "overlap": 2}, 'gossip.overlap: protocol "ad-psgd" never waits'),
        ({"protocol": "ad-psgd", "global_every": 2}, "gossip.global_every: nodes come to one mean in a known"),
        (
            {"protocol": "ad-psgd", "mixing": {"name": "metropolis-hastings"}},
            'gossip.mixing: protocol "ad-psgd" gives half of the mass',
        ),
        ({"protocol": "ad-psgd", "join": "split"}, 'gossip.join: with protocol "ad-psgd" who is asked gives back'),
        ({"overlap": 1, "global_every": 2}, "gossip.global_every: nodes come to one mean in a known"),
        ({"rate_correction": "asyspa"}, 'gossip.rate_correction: protocol "sgp" makes as many steps'),
        ({"protocol": {"name": "sgp", "options": {"f": 1}}}, "gossip.protocol.options.f: unknown key"),
    ],
)
def test_what_does_not_go_together_is_refused_by_its_key(gossip: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as refused:
        require_possible(spec_of(**gossip))
    assert words in str(refused.value)


NOLOCO = {"protocol": "noloco", "topology": {"name": "matching"}}


@pytest.mark.parametrize(
    ("gossip", "training", "words"),
    [
        ({"protocol": "gradient-tracking"}, {"optimizer": "momentum"}, 'with "momentum" what training did is no sum'),
        ({"protocol": "gradient-tracking"}, {"optimizer": "adam"}, 'with "adam" what training did is no sum'),
        ({"protocol": "gradient-tracking"}, {"optimizer": "sgd"}, ""),
        (NOLOCO, {"optimizer": "momentum", "nesterov": True}, 'protocol "noloco" has its own outer momentum'),
        (NOLOCO, {"optimizer": "momentum", "momentum": 0.0}, ""),
        (NOLOCO, {"optimizer": "adam"}, ""),
        ({"protocol": "sgp"}, {"optimizer": "momentum"}, ""),
    ],
)
def test_momentum_inside_training_is_refused_where_a_protocol_has_its_own(
    gossip: dict[str, Any], training: dict[str, Any], words: str
) -> None:
    given = {"name": "run", "mode": "gossip", "task": {"name": "digits"}, "gossip": gossip, "training": training}
    spec = parse_data(given)
    assert isinstance(spec, GossipSpec)
    refused = dict(impossible_in(spec))
    assert set(refused) == ({"training.optimizer"} if words else set())
    assert words in refused.get("training.optimizer", "")


@pytest.mark.parametrize(
    "gossip",
    [
        {},
        {"overlap": 3},
        {"global_every": 2},
        {"protocol": "agp", "rate_correction": "asyspa"},
        {"protocol": "ad-psgd"},
    ],
)
def test_what_goes_together_is_not(gossip: dict[str, Any]) -> None:
    require_possible(spec_of(**gossip), ["a", "b"])
    assert planner_of(spec_of(**gossip))


@pytest.mark.parametrize("protocol", ["agp", "ad-psgd"])
def test_that_nothing_bounds_the_delays_that_asyspa_asks_for_is_said(protocol: str) -> None:
    (note,) = notes_of(spec_of(protocol=protocol, rate_correction="asyspa"))
    assert f'exact where pauses and delays are bounded; "{protocol}" waits for nobody' in note
    assert notes_of(spec_of(protocol=protocol)) == ()


def test_who_is_not_installed_is_named_with_those_that_are() -> None:
    with pytest.raises(PluginError, match=r"gossip\.protocol\.name: no protocol named 'agpp' .* did you mean 'agp'"):
        protocol_of(spec_of(protocol="agpp").gossip)
    with pytest.raises(PluginError, match="an import path, which the operator here must allow"):
        protocol_of(spec_of(protocol="my.module:Mine").gossip)


def test_an_operator_sees_what_is_named_by_an_import_path() -> None:
    paths = spec_of(protocol="a:B", topology={"name": "c:D"}).node_paths()
    assert paths == {"gossip.protocol.name": "a:B", "gossip.topology.name": "c:D"}


def coded(codec: str, protocol: str = "sgp", **options: Any) -> GossipSpec:
    exchange = {"codec": codec, "options": options}
    fields = {"name": "run", "mode": "gossip", "task": {"name": "digits"}, "gossip": {"protocol": protocol}}
    spec = parse_data({**fields, "exchange": exchange})
    assert isinstance(spec, GossipSpec)
    return spec


@pytest.mark.parametrize("codec", ["top-k", "random-k", "sign", "scaled-sign", "terngrad", "int4", "fp8", "a.b:C"])
def test_a_codec_that_leaves_out_too_much_is_refused_with_those_that_do_not(codec: str) -> None:
    with pytest.raises(
        SpecError, match=r'exchange\.codec: .* counts by its whole mass; choose "bf16", "int8", or "qsgd"'
    ):
        require_possible(coded(codec))


def test_a_codec_without_a_scale_is_refused_with_one_as_short_and_one_that_is_finer() -> None:
    with pytest.raises(SpecError, match=r'exchange\.codec: "fp16" has no scale: .* choose "bf16", .* "qsgd" .* = 16'):
        require_possible(coded("fp16"))
    for spec in (coded("bf16"), coded("qsgd", bits=16)):
        require_possible(spec)


@pytest.mark.parametrize("options", [{}, {"bits": 7}, {"levels": 126}, {"bits": "8"}])
def test_noise_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"exchange\.options: below 8 bits \(127 levels\)"):
        require_possible(coded("qsgd", **options))


@pytest.mark.parametrize("protocol", ["sgp", "agp", "ad-psgd"])
def test_what_is_fine_enough_is_not(protocol: str) -> None:
    for spec in (
        coded("bf16", protocol),
        coded("int8", protocol, block=64),
        coded("qsgd", protocol, bits=8),
        coded("qsgd", protocol, levels=127),
    ):
        require_possible(spec)
        assert is_encoded(spec)
        assert not is_encoded(training_spec(spec))  # what training does is not sent
        assert training_spec(spec).gossip == spec.gossip
    assert not is_encoded(coded("none"))


def test_a_protocol_without_mass_has_no_codec() -> None:
    refusals = list(codec_refusals(coded("int8"), "mine", is_possible=False))
    assert [key for key, _ in refusals] == ["exchange.codec"]
    assert 'what protocol "mine" sends has no mass' in refusals[0][1]
