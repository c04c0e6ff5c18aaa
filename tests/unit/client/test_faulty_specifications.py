"""All that is wrong with a gossip specification is said at once: values, unread keys, impossible combinations."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from covey.client.specification import gossip_spec, parsed, request_of
from covey.errors import SpecError
from covey.gossip.protocols.runs import combination_of
from covey.gossip.topologies.contract import TOPOLOGIES
from covey.gossip.topologies.given import Given
from covey.spec import parse_toml, written_in
from covey.worker.execute.coordinator_ops import describe
from covey.worker.jobs.runs import DescribeJob
from covey.worker.program.host import Host

IMPOSSIBLE = """
name = "bad"
mode = "gossip"
rounds = { participants = 3 }
[task]
name = "digits"
[training]
local_steps = 1
[exchange]
codec = "top-k"
downlink = "change"
[gossip]
protocol = "agp"
overlap = 2
global_every = 2
"""
FAULTY = IMPOSSIBLE.replace("local_steps = 1", "local_steps = 0")
COMBINED = ("rounds: ", "exchange.downlink: ", "exchange.codec: ", "gossip.overlap: ", "gossip.global_every: ")


def keys_of(error: SpecError) -> list[str]:
    """The keys that a message names, in order."""
    return [part.partition(": ")[0] + ": " for part in str(error).split("; ") if ": " in part and " " not in part[:6]]


@pytest.mark.parametrize("read", [parsed, gossip_spec, request_of])
def test_a_wrong_value_does_not_hide_what_could_not_work_either(read: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(FAULTY)
    with pytest.raises(SpecError, match=r"^training\.local_steps: ") as refused:
        read(path)
    for key in COMBINED:
        assert keys_of(refused.value).count(key) == 1, refused.value


def test_what_one_should_know_of_a_gossip_run_is_said_at_its_submission() -> None:
    text = IMPOSSIBLE.replace("rounds = { participants = 3 }", "").partition("[exchange]")[0]
    spec = parse_toml(text + '[gossip]\nprotocol = "agp"\nrate_correction = "asyspa"\n')
    (note,) = describe(DescribeJob(spec.to_json(), submitted=True), cast(Host, SimpleNamespace(device="cpu"))).notes
    assert note.startswith("gossip.rate_correction: AsySPA is exact where pauses and delays are bounded")


def test_a_coordinator_refuses_a_robust_run_that_may_begin_with_too_few_nodes() -> None:
    text = IMPOSSIBLE.replace("rounds = { participants = 3 }", "").partition("[exchange]")[0]
    robust = text + '[gossip]\nprotocol = "trimmed-mean"\ntopology = { name = "complete" }\nmin_nodes = '
    host = cast(Host, SimpleNamespace(device="cpu"))
    describe(DescribeJob(parse_toml(f"{robust}4\n").to_json(), submitted=True), host)
    describe(DescribeJob(parse_toml(f"{robust}3\n").to_json()), host)  # simulated: it is known who takes part
    with pytest.raises(
        SpecError, match=r"gossip.protocol.options.f: with 1 .* begins with 3 nodes, .* larger min_nodes"
    ):
        describe(DescribeJob(parse_toml(f"{robust}3\n").to_json(), submitted=True), host)


@pytest.mark.parametrize(
    "topology",
    [
        'topology = { name = "file", options = { edges = "graph.edgelist" } }',
        "[gossip.topology]\nname = 'file'\n[gossip.topology.options]\nedges = 'graph.edgelist' # edges = 'none'\n",
    ],
)
def test_a_file_of_edges_is_read_by_who_submits_and_its_line_is_said(topology: str, tmp_path: Path) -> None:
    path, graph = tmp_path / "run.toml", tmp_path / "graph.edgelist"
    path.write_text('name = "r"\nmode = "gossip"\n[task]\nname = "digits"\n[gossip]\n' + topology)
    graph.write_text('a b\nb "c\\n\n"c\\n a\n')  # names as any
    edges = (("a", "b"), ("b", '"c\\n'), ('"c\\n', "a"))
    assert isinstance(made := TOPOLOGIES.make("file", gossip_spec(path).gossip.topology.options), Given)
    assert made.options.edges == edges
    assert parse_toml(request_of(path).spec_toml) == parsed(path)
    with pytest.raises(SpecError, match=r"topology\.options\.edges: a file of edges is read only"):
        combination_of(gossip_spec(path.read_text()))
    graph.write_text("a b\nc\n")
    for read in (parsed, gossip_spec, request_of):
        with pytest.raises(SpecError, match=r"graph\.edgelist, line 2: an edge is two names, not 'c'"):
            read(path)
    graph.unlink()
    with pytest.raises(SpecError, match=r"graph\.edgelist cannot be read"):
        parsed(path)


def test_a_coordinator_says_all_combinations_at_once() -> None:
    job = DescribeJob(parse_toml(IMPOSSIBLE, later=True).to_json(), submitted=True, written=written_in(IMPOSSIBLE))
    with pytest.raises(SpecError) as refused:
        describe(job, cast(Host, SimpleNamespace(device="cpu")))
    assert sorted(keys_of(refused.value)) == sorted(COMBINED)


@pytest.mark.parametrize(
    ("wrong", "hidden"),
    [
        ("protocol = 3\nrate_correction = 'asyspa'", "rate_correction"),
        ("topology = 'ring'\nmixing = { name = 'metropolis-hastings' }", "gossip.mixing"),
    ],
)
def test_what_depends_on_the_wrong_value_is_not_guessed(wrong: str, hidden: str) -> None:
    with pytest.raises(SpecError) as refused:
        parsed(f'name = "x"\nmode = "gossip"\n[task]\nname = "digits"\n[gossip]\n{wrong}')
    assert hidden not in str(refused.value)


def test_what_cannot_be_read_says_what_it_did() -> None:
    for text, words in (('name = "x"\nmode = "ring"', "mode: "), ('name = "x" x = 3', "not valid TOML")):
        with pytest.raises(SpecError, match=words):
            parsed(text)
    with pytest.raises(SpecError, match=r"^task: this key is required$"):
        parsed('name = "x"\nmode = "gossip"\n[gossip]\noverlap = 2\nprotocol = "agp"')


def test_other_modes_say_all_of_theirs(tmp_path: Path) -> None:
    text = 'name = "x"\n[task]\nname = "digits"\n[training]\nlocal_steps = 2\nlearning_rate = -1\n[exchange]\n'
    with pytest.raises(SpecError, match=r"training\.learning_rate: .*; training\.local_steps: payload"):
        parsed(f'{text}payload = "gradient"\n')
