"""A majority vote over stochastic signs: nine nodes, a million parameters, and the bytes that pass the wire."""

from __future__ import annotations

import pytest

from covey.testing.federation import Federation
from covey.testing.relay import RelayThread
from tests.integration.specs import spec
from tests.integration.test_exchange import VOTE

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
NODES, ROUNDS, HIDDEN = 9, 12, 14_000
D = 64 * HIDDEN + HIDDEN + HIDDEN * 10 + 10


def test_at_most_a_thirtieth_of_float32_each_way(tmp_path):
    extra = f'[exchange]\npayload = "gradient"\ncodec = "sto-sign"\noptions = {{ bound = "broadcast" }}\n{VOTE}'
    extra = extra.replace("0.002", "0.0002") + "[evaluation]\nevery = 6\n"
    with Federation(tmp_path, nodes=NODES) as federation:
        federation.start_coordinator()
        federation.join()
        with RelayThread(federation.coordinator_address) as relay:
            for index in range(NODES):
                federation.start_node(index, options=["--server", relay.address])
            federation.wait_connected(NODES)
            relay.reset_counts()
            run = federation.submit(
                spec(
                    "one-bit",
                    options=f"hidden = {HIDDEN}",
                    training="local_steps = 1",
                    rounds=ROUNDS,
                    min_nodes=NODES,
                    extra=extra,
                )
            )
            shown = federation.wait(run, timeout_s=240)
            whole = 4 * D * NODES * ROUNDS
            ratios = {direction: whole / relay.bytes_carried(direction) for direction in ("up", "down")}
    print(f"accuracy {shown['metrics']['accuracy']:.3f}; float32 bytes over bytes on the wire: {ratios}")
    assert D >= 1_000_000
    assert shown["metrics"]["accuracy"] > 0.6
    assert min(ratios.values()) >= 30
