"""Gossip through a coordinator: it hands out who takes part and observes; no model passes through it."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from covey.client.connection import connect
from covey.client.gossip_nodes import mass_of, read_account, read_node
from covey.errors import CoveyError, NotFound
from covey.gossip.ledger import Incarnation
from covey.library.plot import read
from covey.library.run import FederatedRun
from covey.node.peers.evicted import Evicted
from covey.storage.sql.store import open_store
from covey.testing.federation import Federation, FederationError
from covey.testing.gossip import relay_daemon, simulated
from covey.testing.launch.ports import free_addresses
from covey.wire.identities.gossip_statement import GossipStatement
from covey.wire.identities.identity import Identity
from tests.integration.specs import GOSSIP

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
ONE = 1 << 52
CODISTILL = """
name = "codistill"
mode = "gossip"
seed = 3
[task]
name = "digits"
options = { common = 200 }
[data]
partition = "dirichlet"
alpha = 1.0
[training]
local_steps = 4
learning_rate = 0.1
[gossip]
steps = 6
min_nodes = 3
protocol = { name = "codistill", options = { classes = 10, waits = true } }
topology = { name = "complete" }
"""


def started(federation: Federation, callers: int = 0, later: int = 0) -> list[str]:
    """Start a federation whose nodes listen for peers, but for the last `callers`, and `later` ones; the addresses."""
    federation.start_coordinator()
    federation.join()
    return with_nodes(federation, [[]] * callers, later)


def with_nodes(federation: Federation, others: Sequence[Sequence[str]], later: int = 0) -> list[str]:
    """Start the nodes but `later` ones; the last ones do not listen, but have these options. The addresses."""
    addresses = free_addresses(len(federation.names))
    listening = [["--peer-listen", address] for address in addresses[: len(addresses) - len(others)]]
    options = [*listening, *others][: len(addresses) - later]
    for index, each in enumerate(options):
        federation.start_node(index, options=each)
    federation.wait_connected(len(options))
    return addresses


@contextmanager
def meeting(federation: Federation) -> Iterator[str]:
    """A relay for the nodes of a federation that was joined; its address."""
    relay, address = relay_daemon(
        federation.root, federation.node_dir(0) / "identity" / "authority.crt", dict(os.environ)
    )
    try:
        yield address
        assert relay.alive, relay.tail()
    finally:
        relay.terminate()
        relay.wait(60)


def audited(federation: Federation, run: str) -> dict[str, Any]:
    """`covey gossip audit` of all nodes' data directories."""
    folders = [federation.node_dir(index) for index in range(len(federation.names))]
    report: dict[str, Any] = json.loads(federation.cli("gossip", "audit", *folders, "--run", run, "--json"))
    return report


def test_three_nodes_one_of_which_only_calls(tmp_path: Path) -> None:
    with Federation(tmp_path, nodes=3) as federation:
        started(federation, callers=1)
        run = federation.submit(GOSSIP.format(steps=6, nodes=3))
        lines = federation.cli("run", "watch", run, "--json", "--data-dir", federation.coordinator_dir).splitlines()
        steps = [json.loads(line)["run"]["steps_done"] for line in lines]
        assert steps == sorted(steps)  # while it goes on, and to its end
        assert steps[0] < steps[-1] == 6
        ended = federation.wait(run, timeout_s=100)
        assert (ended["state"], ended["reason"]) == ("completed", "")
        mass = audited(federation, run)
        assert (mass["exact"], mass["live"], mass["findings"]) == (True, 3 * ONE, [])
        accounts = [read_account(federation.node_dir(index), run) for index in range(3)]
        assert all(account["edges"] for account in accounts)
        check_views(federation, run, 6)
        check_begun_with_a_file(federation, run, tmp_path)
        check_codistilled(federation, tmp_path)


def check_begun_with_a_file(federation: Federation, parent: str, folder: Path) -> None:
    """Nodes have the file that a run begins with from the coordinator: the seed gives another model."""
    folders = [federation.node_dir(index) for index in range(3)]
    path, text = folder / "begin.safetensors", GOSSIP.format(steps=1, nodes=3).replace("0.1", "1e-30")
    given = json.loads(federation.cli("gossip", "export", *folders, "--run", parent, "--out", path, "--json"))
    (folder / "begun.toml").write_text(f'{text}[model]\ninitial = "{path.name}"\n')
    run = federation.cli("run", "submit", folder / "begun.toml", "--data-dir", federation.coordinator_dir).split()[-1]
    assert federation.wait(run, timeout_s=100)["state"] == "completed"
    assert federation.show(run)["model_sha256"] == given["model_sha256"]
    for index in range(3):
        assert read_node(federation.node_dir(index), run).model_sha256 == given["model_sha256"]


def check_codistilled(federation: Federation, folder: Path) -> None:
    """Nodes that the coordinator brought together learn from each other what those of the simulation learn."""
    outcome = simulated(folder, CODISTILL, 3)
    run = federation.submit(CODISTILL)
    assert federation.wait(run, timeout_s=200)["state"] == "completed"
    models = [read_node(federation.node_dir(index), run).model_sha256 for index in range(3)]
    assert models == [peer["model_sha256"] for peer in outcome["peers"]]
    assert len(set(models)) == 3
    where = ("--json", "--data-dir", federation.coordinator_dir)
    shown = json.loads(federation.cli("run", "show", run, *where))
    assert [part["model_sha256"] for part in shown["gossip"]] == models
    mass = audited(federation, run)
    assert (mass["exact"], mass["findings"]) == (True, [])
    assert json.loads(federation.cli("run", "audit", run, *where))["ok"]


def check_views(federation: Federation, run: str, steps: int) -> None:
    """What the coordinator shows of a completed run is what its nodes have on record, and the audit says so."""
    where = ("--data-dir", federation.coordinator_dir)
    shown = json.loads(federation.cli("run", "show", run, "--json", *where))
    assert (shown["steps_done"], shown["steps"], shown["model_version"]) == (steps, steps, 0)
    assert shown["mass"] == {
        "exact": True,
        "live": ONE * len(federation.names),
        "in_flight": 0,
        "minted": ONE * len(federation.names),
        "lost": 0,
        "uncertain": 0,
        "findings": [],
        "weighs": "mass",
    }
    for index, part in enumerate(shown["gossip"]):
        node = read_node(federation.node_dir(index), run)
        assert (part["node"], part["state"], part["step"]) == (federation.names[index], "completed", steps)
        assert part["model_sha256"] == node.model_sha256 != ""
        assert part["weight"] == mass_of(node)
        assert part["metrics"]["loss"] > 0
    curves = json.loads(federation.cli("run", "steps", run, "--all", "--json", *where))
    assert [(row["node"], row["step"]) for row in curves] == [
        (name, step) for name in federation.names for step in range(steps + 1)
    ]
    assert all(row["metrics"]["loss"] > 0 for row in curves)
    assert federation.cli("run", "steps", run, *where).splitlines()[0].split()[:3] == ["NODE", "STEP", "MASS"]
    with connect(federation.coordinator_dir) as connection:
        whole, to = FederatedRun(connection, connection.run(run)), f"csv:{federation.root / 'curves'}"
        assert len(whole.metrics()) == len(curves)
        points = sum(len({"mass", "trained_s", "blocked_s"} | row["metrics"].keys()) for row in curves)
        assert (whole.track(to, follow=True), whole.track(to)) == (points, 0)
        with pytest.raises(NotFound, match="covey gossip export DATA_DIR"):
            whole.track(to, model=True)
        labels = [curve.label for curve in read(connection, [run])]
        assert labels == [f"gossip: {name}" for name in federation.names]
        assert read(connection, [run])[0].points("mass", "rounds")[0] == list(range(steps + 1))
    with pytest.raises(FederationError, match=f"there are no rounds. See covey run steps {run}"):
        federation.cli("round", "list", run, *where)
    text = federation.cli("run", "show", run, *where)
    assert "steps done by all" in text
    assert "exact: " in text
    audit = json.loads(federation.cli("run", "audit", run, "--json", *where))
    assert audit["ok"] is True, audit
    assert audit["statements"] >= len(federation.names)
    assert audit["notes"] == []
    model = federation.root / "m.safetensors"
    with pytest.raises(FederationError, match=rf"covey gossip export DATA_DIR\.\.\. --run {run} --out FILE"):
        federation.cli("run", "export", run, "--to", model, *where)
    assert not model.exists()
    folders = [federation.node_dir(index) for index in range(len(federation.names))]
    federation.cli("gossip", "export", *folders, "--run", run, "--out", model)  # as it says
    assert model.exists()


def until_step(federation: Federation, run: str, index: int, step: int) -> None:
    """Wait until a node has so many steps on record."""

    def has_come_so_far() -> bool:
        try:
            return read_node(federation.node_dir(index), run).machine.step >= step
        except CoveyError:
            return False

    federation.until(has_come_so_far, 200, f"{federation.names[index]} did not come to step {step}")


def told_steps(store_url: str, run: str, node: str) -> list[int]:
    """The steps of which a node's statements tell, as the coordinator has them."""
    store = open_store(store_url)
    try:
        rows = store.gossip_statements(run, node)
    finally:
        store.close()
    return [step.step for row in rows for step in GossipStatement.from_bytes(row.statement).steps]


@contextmanager
def database_away(server: Any) -> Iterator[None]:
    """PostgreSQL is ended at once, without a word to anybody (SIGQUIT); then it recovers, and is there again."""
    process = psutil.Process(int((Path(server.pgdata) / "postmaster.pid").read_text().splitlines()[0]))
    process.send_signal(signal.SIGQUIT)
    process.wait(60)
    try:
        yield
    finally:
        server.ensure_postgres_running()


def test_the_database_the_coordinator_and_a_node_are_killed_and_nobody_waits_for_them(
    tmp_path: Path, postgres_server: Any, postgres_database: str
) -> None:
    """The coordinator's record is in PostgreSQL, and a node waits at a relay for its peers."""
    steps = 120  # more than the nodes make while the database ends
    with ExitStack() as stack:
        federation = stack.enter_context(Federation(tmp_path, nodes=3, store_url=postgres_database))
        federation.start_coordinator()
        federation.join()
        addresses = with_nodes(federation, [["--peer-relay", stack.enter_context(meeting(federation))]])
        run = federation.submit(GOSSIP.format(steps=steps, nodes=3))
        until_step(federation, run, 0, 3)
        workers = [pid for name, pid in federation.worker_pids.items() if name in federation.names]
        with database_away(postgres_server):
            coordinator, step = federation.coordinator, read_node(federation.node_dir(0), run).machine.step
            assert coordinator is not None
            until_step(federation, run, 0, step + 2)  # nodes go on meanwhile
            for pid in workers:
                os.kill(pid, signal.SIGSTOP)  # and are not through before it is back
            federation.until(lambda: "database is away" in coordinator.printed, 100, "the coordinator did not notice")
        federation.until(
            lambda: max(told_steps(postgres_database, run, "n0"), default=0) > step, 100, "it does not go on"
        )
        assert coordinator.alive
        federation.kill_coordinator()
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        until_step(federation, run, 1, read_node(federation.node_dir(1), run).machine.step + 4)
        federation.kill_node(1)
        federation.start_node(1, options=["--peer-listen", addresses[1]])
        for index in range(3):  # to the end: nobody waits for the coordinator
            until_step(federation, run, index, steps)
        federation.start_coordinator()
        ended = federation.wait(run, timeout_s=100)
        assert (ended["state"], ended["reason"]) == ("completed", "")
        mass = audited(federation, run)
        assert (mass["exact"], mass["live"], mass["findings"]) == (True, 3 * ONE, [])
        check_views(federation, run, steps)
        for name in federation.names:
            # the last row is the end, after all steps
            assert sorted(set(told_steps(postgres_database, run, name))) == list(range(steps + 1))


def test_an_evicted_node_is_out_a_late_one_has_its_part_one_moves_and_a_run_can_be_stopped(tmp_path: Path) -> None:
    with Federation(tmp_path, nodes=4) as federation:
        addresses = started(federation, later=1)
        where = ("--data-dir", federation.coordinator_dir)
        run = federation.submit(GOSSIP.format(steps=2000, nodes=3))
        until_step(federation, run, 2, 3)
        federation.start_node(3, options=["--peer-listen", addresses[3]])
        federation.until(
            lambda: "all parts of the data are with other" in shown_text(federation, run), 100, "no reason"
        )
        federation.node(2).may_die = True  # what is evicted ends
        federation.cli("node", "evict", "--yes", federation.names[2], *where)
        until_out(federation, run)
        check_late(federation, run)
        addresses[1] = moved(federation, run)
        federation.cli("run", "stop", run, *where)
        ended = federation.wait(run, states=("stopped",))
        shown = json.loads(federation.cli("run", "show", run, "--json", *where))
        assert [part["state"] for part in shown["gossip"]][2] == "evicted", ended
        for index in (0, 1, 3):
            stands_still(federation, run, index, addresses[index])
        audit = json.loads(federation.cli("run", "audit", run, "--json", *where))
        assert audit["ok"] is True, audit
        folders = [federation.node_dir(index) for index in (0, 1, 3)]
        mass = json.loads(federation.cli("gossip", "audit", *folders, "--run", run, "--json"))
        assert (mass["exact"], mass["minted"]) == (True, 3 * ONE), mass  # who came late brought none


def shown_text(federation: Federation, run: str) -> str:
    """What `covey run show` prints."""
    return federation.cli("run", "show", run, "--data-dir", federation.coordinator_dir)


def knows(folder: Path, run: str, peer: Incarnation) -> bool:
    """Whether a node exchanges models with a peer."""
    return peer in read_node(folder, run).machine.exchange.peers


def check_late(federation: Federation, run: str) -> None:
    """A node that came after the run began takes part where another one's part of the data is free."""
    until_step(federation, run, 3, 1)
    late = read_node(federation.node_dir(3), run)
    assert late.facts.me == Incarnation(federation.names[3], 2)
    assert tuple(peer.node for peer in late.facts.peers) == federation.names[:3]
    assert late.ledger.minted == 0
    for index in (0, 1):
        folder = federation.node_dir(index)
        federation.until(partial(knows, folder, run, late.facts.me), 100, f"{folder.name} does not know it")
        order = json.loads((folder / "gossip" / run / "order.json").read_text())
        assert [(member["late"], member["part"]) for member in order["members"]] == [(False, 0)] * 3 + [(True, 2)]
    federation.until(lambda: read_node(federation.node_dir(3), run).ledger.live > 0, 100, "it has no mass")


def moved(federation: Federation, run: str) -> str:
    """The second node is killed, and comes back at another address, where the first one calls it; that address."""
    here, there = federation.node_dir(0), federation.node_dir(1)
    me, peer = Incarnation(federation.names[0]), Incarnation(federation.names[1])
    federation.kill_node(1)
    (address,) = free_addresses(1)
    federation.start_node(1, options=["--peer-listen", address])

    def is_called_there() -> bool:
        members = json.loads((here / "gossip" / run / "order.json").read_text())["members"]
        return [member["address"] for member in members if member["name"] == peer.node] == [address]

    federation.until(is_called_there, 100, "the first node does not know where the second one is")
    given, had = (read_node(folder, run).ledger for folder in (here, there))
    federation.until(
        lambda: (
            read_node(here, run).ledger.out[peer].sequence > given.out[peer].sequence + 1
            and read_node(there, run).ledger.out[me].sequence > had.out[me].sequence + 1
        ),
        100,
        "they exchange nothing any more",
    )
    return address


def until_out(federation: Federation, run: str) -> None:
    """Wait until the others know that the last node is evicted."""
    out = Incarnation(federation.names[2])
    known = [federation.node_dir(index) for index in (0, 1)]
    federation.until(
        lambda: all(out in read_node(folder, run).ledger.evicted for folder in known),
        120,
        "nobody knows of the eviction",
    )
    authority = Identity.load(known[0] / "identity").authority_pem
    for folder in known:  # whatever incarnation it comes back as
        evicted = Evicted(folder / "gossip" / run / "evictions", run, lambda _: True, authority)
        federation.until(partial(is_for_good, evicted, out.node), 120, f"{folder.name} would take its next incarnation")


def is_for_good(evicted: Evicted, node: str) -> bool:
    """Whether what is on disk puts a node out for good."""
    evicted.load()
    return evicted.for_good == [node]


def is_listened_at(address: str) -> bool:
    """Whether somebody takes connections there."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def stands_still(federation: Federation, run: str, index: int, address: str) -> None:
    """A node whose run was stopped has closed its part: its peers' listener is free again."""
    federation.until(lambda: not is_listened_at(address), 60, f"{federation.names[index]} still listens at {address}")
    assert read_node(federation.node_dir(index), run).machine.step < 2000
