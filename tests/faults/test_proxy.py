"""A site whose only way out is an HTTP proxy, and a coordinator that has port 443 alone."""

from __future__ import annotations

import random
import subprocess

import pytest

from covey.testing.federation import Federation
from covey.testing.links.http_proxy import HttpProxy
from covey.wire.identities.tokens import JoinToken
from tests.faults.namespaces import HERE, cable
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]
TRAIN = "train.covey.invalid:443"
"""A name that nobody but the proxy knows."""
ROUNDS = 3


def test_a_node_joins_trains_and_goes_on_through_a_proxy_at_port_443(tmp_path):
    here = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(1, 254)}:443"
    with cable() as way_out, Federation(tmp_path / "federation", nodes=1) as federation:
        federation.coordinator_address = federation.enrol_address = here
        federation.start_coordinator(options=("--advertise", TRAIN))
        token = federation.admin.create_token("n0")
        assert JoinToken.decode(token).server == JoinToken.decode(token).enrol == TRAIN
        (tmp_path / "join.token").write_text(token)
        direct = (*way_out.under, "timeout", "5", "bash", "-c", f": < /dev/tcp/{here.replace(':', '/')}")
        assert subprocess.run(direct, capture_output=True).returncode != 0
        with HttpProxy({TRAIN: here}, user="ada:p@ss", host=HERE) as proxy:
            proxy.stop()  # so that its port is known, and nobody listens there yet
            node = federation.start_node(
                0,
                env={"https_proxy": proxy.url, "no_proxy": "", "http_proxy": ""},
                options=("--join", str(tmp_path / "join.token")),
                under=way_out.under,
            )
            federation.until(lambda: "does not answer: Connection refused" in node.printed, 60, "it said nothing")
            proxy.start()
            federation.wait_connected(1)
            run = federation.submit(spec(rounds=ROUNDS, min_nodes=1))
            federation.wait_round(run, 1)
            proxy.stop()
            federation.wait_connected(0)
            proxy.start()
            ended = federation.wait(run, timeout_s=120)
            assert ended["rounds_committed"] == ROUNDS
            assert set(proxy.asked) == {(TRAIN, 200)}
