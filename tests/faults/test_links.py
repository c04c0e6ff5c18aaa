"""A link that is cut, goes away or stalls in the middle of a transfer: it resumes, and few chunks travel twice."""

from __future__ import annotations

import json
import random
import time

import pytest

from covey.testing.federation import Federation
from covey.testing.relay import RelayThread
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]
UPDATE_BYTES = 12_000_000
CHUNK = 1 << 20
NO_EVALUATION = "[evaluation]\nevery = 0"
USUAL_BYTES_PER_S = 10e6
"""Slow enough for a busy receiver to keep up: what it has not taken yet when a link is cut is lost."""
SLOW_BYTES_PER_S = 4e6
AWAY_S = 2.0


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    """Node n1 reaches its coordinator through a relay that can cut."""
    with Federation(tmp_path_factory.mktemp("links"), nodes=2) as federation:
        federation.start_coordinator()
        federation.join()
        with RelayThread(federation.coordinator_address) as relay:
            federation.start_node(0)
            federation.start_node(1, options=["--server", relay.address])
            federation.wait_connected(2)
            yield federation, relay


@pytest.fixture
def slow(setup):
    """The same, with a slow way up: an update takes three seconds."""
    federation, relay = setup
    federation.wait_connected(2)
    relay.reset_counts()
    relay.do(lambda r: r.throttle("up", SLOW_BYTES_PER_S))
    yield federation, relay
    relay.do(lambda r: r.throttle("up", None))
    relay.do(lambda r: r.resume("up"))
    relay.heal()


def one_transfer(name, seed, direction="up", policy=""):
    """One update goes up, or one model down (the second: the first is made from the seed on the node).

    A model and a seed of its own: files that are here already would not travel again.
    """
    size = f"parameters = {UPDATE_BYTES // 4 + 10 * seed}"
    count = {"up": 1, "down": 2}[direction]
    return spec(name, task="synthetic", options=size, rounds=count, seed=seed, policy=policy, extra=NO_EVALUATION)


def undisturbed(federation, whole):
    return federation.wait(federation.submit(whole))["model_sha256"]


def rounds(federation, run):
    return [(r["state"], r["attempt"], r["accepted"]) for r in federation.rounds(run)]


def cuts(direction):
    """Where it is cut: at the first byte, at the last that is surely sent, and at two anywhere between."""
    draw = random.Random(f"cut {direction}")
    return [(direction, at) for at in (1, *sorted(draw.randrange(2, UPDATE_BYTES) for _ in range(2)), UPDATE_BYTES)]


CUTS = [(seed, *cut) for seed, cut in enumerate([*cuts("up"), *cuts("down")], start=1)]


@pytest.mark.parametrize(("seed", "direction", "after_bytes"), CUTS)
def test_a_cut_transfer_resumes(setup, seed, direction, after_bytes):
    federation, relay = setup
    federation.wait_connected(2)
    whole = one_transfer(f"cut-{direction}-{after_bytes}", seed, direction)
    relay.reset_counts()
    relay.do(lambda r: r.throttle(direction, USUAL_BYTES_PER_S))
    relay.cut_once(direction, after_bytes)
    run = federation.submit(whole)
    shown = federation.wait(run)
    carried = relay.bytes_carried(direction)
    relay.do(lambda r: r.throttle(direction, None))
    assert relay.cuts == 1
    assert UPDATE_BYTES < carried < UPDATE_BYTES + 5 * CHUNK
    assert set(rounds(federation, run)) == {("committed", 1, 2)}
    assert undisturbed(federation, whole) == shown["model_sha256"]


def in_mid_upload(federation, relay, whole):
    run = federation.submit(whole)
    federation.until(lambda: relay.bytes_carried("up") > 3 * CHUNK, 60, "the upload did not begin")
    return run


def test_a_node_that_is_cut_off_in_mid_upload_comes_back_and_goes_on(slow):
    federation, relay = slow
    whole = one_transfer("partitioned", 101)
    run = in_mid_upload(federation, relay, whole)
    relay.partition()
    federation.wait_connected(1)
    time.sleep(AWAY_S)  # that long the node finds nobody
    assert federation.admin.status()["nodes_connected"] == 1
    assert relay.bytes_carried("up") < UPDATE_BYTES
    relay.do(lambda r: r.throttle("up", None))
    relay.heal()
    shown = federation.wait(run)
    assert relay.bytes_carried("up") < UPDATE_BYTES + 5 * CHUNK
    assert rounds(federation, run) == [("committed", 1, 2)]
    assert 0 < federation.admin.round(run, 1)["resent_up"] < UPDATE_BYTES
    assert undisturbed(federation, whole) == shown["model_sha256"]


def test_a_stall_is_waited_for_and_nothing_travels_twice(slow):
    federation, relay = slow
    whole = one_transfer("stalled", 102)
    run = in_mid_upload(federation, relay, whole)
    relay.do(lambda r: r.stall("up"))
    connections = relay.do(lambda r: r.connections)
    time.sleep(AWAY_S)  # that long not one byte passes
    assert relay.bytes_carried("up") < UPDATE_BYTES
    assert federation.show(run)["state"] == "running"
    relay.do(lambda r: r.throttle("up", None))
    relay.do(lambda r: r.resume("up"))
    shown = federation.wait(run)
    assert relay.do(lambda r: r.connections) == connections
    assert relay.bytes_carried("up") < UPDATE_BYTES + CHUNK
    assert rounds(federation, run) == [("committed", 1, 2)]
    assert undisturbed(federation, whole) == shown["model_sha256"]


def test_a_link_that_moves_slowly_is_not_late(slow):
    federation, _ = slow
    run = federation.submit(one_transfer("slow", 103, policy="deadline_s = 1"))
    federation.wait(run)
    assert federation.rounds(run)[0]["seconds"] > UPDATE_BYTES / SLOW_BYTES_PER_S  # far beyond its deadline
    assert rounds(federation, run) == [("committed", 1, 2)]


DROP_EVERY_BYTES = 5_000_000
"""On the way up: an update takes three connections."""


def test_a_link_that_drops_again_and_again_completes_and_says_what_went_twice(setup):
    """100 ms round trip, and at 10 MB/s a connection that ends after every 5 MB, as one that drops every 20 s would."""
    federation, relay = setup
    federation.wait_connected(2)
    whole = one_transfer("drops", 104)
    before = relay.cuts
    relay.do(lambda r: (r.latency("up", 0.05), r.latency("down", 0.05), r.throttle("up", USUAL_BYTES_PER_S)))
    relay.do(lambda r: r.cut_each("up", DROP_EVERY_BYTES))
    try:
        run = federation.submit(whole)
        shown = federation.wait(run)
    finally:
        relay.do(lambda r: (r.cut_each("up", None), r.throttle("up", None)))
        relay.do(lambda r: (r.latency("up", 0.0), r.latency("down", 0.0)))
    cuts = relay.cuts - before
    assert cuts >= 2
    assert rounds(federation, run) == [("committed", 1, 2)]
    target = ["--data-dir", federation.coordinator_dir, "--json"]
    detail = json.loads(federation.cli("round", "show", run, 1, *target))
    assert 0 < detail["bytes_resent_up"] < cuts * UPDATE_BYTES
    assert undisturbed(federation, whole) == shown["model_sha256"]
