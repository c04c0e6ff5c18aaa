"""What a coordinator hands out is what nodes do: who sends to whom, from the run's file, and what an exchange syncs."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from covey.gossip.topologies.contract import TOPOLOGIES, Swarm
from covey.node.gossip.record.database import open_record
from covey.node.gossip.record.reader import rows_of
from covey.node.gossip.record.schema import ExchangeRow
from covey.testing.federation import Federation
from covey.testing.launch.ports import free_addresses

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
NODES, STEPS = 4, 6
SYNCED = 3
"""The node whose operator says `durability = "power"`."""
SPEC = """
name = "gossip"
mode = "gossip"
[task]
name = "synthetic"
options = {{ parameters = 50_000 }}
[gossip]
steps = {steps}
min_nodes = {nodes}
topology = {{ name = "{topology}", options = {{ {options} }} }}
"""
SITES = {"a": ["n0", "n3"], "b": ["n1", "n2"]}
EDGES = [("n0", "n1"), ("n1", "n2"), ("n2", "n3"), ("n3", "n0"), ("n0", "n2")]


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with Federation(tmp_path_factory.mktemp("federation"), nodes=NODES) as made:
        made.start_coordinator()
        made.join()
        (made.node_dir(SYNCED) / "node.toml").write_text('[peers]\ndurability = "power"\n')
        for index, address in enumerate(free_addresses(NODES)):
            made.start_node(index, options=["--peer-listen", address])
        made.wait_connected(NODES)
        yield made


def completed(federation: Federation, folder: Path, topology: str, options: str) -> str:
    """A run of a specification in a file, to its end; its id."""
    path = folder / "run.toml"
    path.write_text(SPEC.format(steps=STEPS, nodes=NODES, topology=topology, options=options))
    run = federation.cli("run", "submit", path, "--data-dir", federation.coordinator_dir).split()[-1]
    federation.wait(run, timeout_s=200)
    return run


def exchanges(federation: Federation, run: str, index: int, way: str) -> list[tuple[int, str]]:
    """(step, peer) of the batches that a node gave or had."""
    engine = open_record(federation.node_dir(index) / "gossip" / run / "1")
    try:
        return [(row["step"], row["peer"]) for row in rows_of(engine, ExchangeRow) if row["way"] == way]
    finally:
        engine.dispose()


def require_sent(federation: Federation, run: str, topology: str, options: dict[str, Any]) -> None:
    """Every node sent to whom the topology says, in each step, and to nobody else."""
    names = federation.names
    made, swarm = TOPOLOGIES.make(topology, options), Swarm(names)
    for index in range(NODES):
        expected = [(step, names[to]) for step in range(STEPS) for to in made.graph(step, swarm)[index]]
        assert sorted(exchanges(federation, run, index, "out")) == sorted(expected)


def test_a_file_of_edges_is_who_sends_to_whom(federation: Federation, tmp_path: Path) -> None:
    (tmp_path / "graph.edgelist").write_text("# a ring and a chord\n" + "\n".join(map(" ".join, EDGES)))
    run = completed(federation, tmp_path, "file", 'edges = "graph.edgelist"')
    require_sent(federation, run, "file", {"edges": EDGES})
    for index, name in enumerate(federation.names):
        sent = {(name, peer) for _, peer in exchanges(federation, run, index, "out")}
        assert sent == {edge for edge in EDGES if edge[0] == name}


@contextmanager
def traced(federation: Federation, index: int, path: Path) -> Iterator[None]:
    """What a node's process syncs meanwhile is written to a file."""
    where = ["-f", "-y", "-e", "trace=fsync,fdatasync", "-o", str(path), "-p", str(federation.node(index).pid)]
    with subprocess.Popen(["strace", *where], stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        try:
            if b"attached" not in tracer.stderr.readline():
                pytest.skip("strace may not attach to a process here")
            yield
        finally:
            tracer.terminate()
            tracer.stderr.read()


def synced_in(trace: Path, run: str) -> list[str]:
    """Which files of a run's models, and of its record once that was made, were synced, in order."""
    return re.findall(rf"sync\(\d+<[^>]*/gossip/{run}/1/(files/[^>]*|record\.db-wal)>", trace.read_text())


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_sites_of_machines_one_of_which_syncs_what_is_exchanged(federation: Federation, tmp_path: Path) -> None:
    traces = {index: tmp_path / f"trace-{index}" for index in (0, SYNCED)}
    sites = ", ".join(f"{site} = {nodes}" for site, nodes in SITES.items()).replace("'", '"')
    with ExitStack() as stack:
        for index, trace in traces.items():
            stack.enter_context(traced(federation, index, trace))
        run = completed(federation, tmp_path, "two-level", f"between_every = 2, sites = {{ {sites} }}")
    require_sent(federation, run, "two-level", {"between_every": 2, "sites": SITES})
    beginning = synced_in(traces[0], run)  # the run's first model, and the rows that are there before any exchange
    assert not any(name.startswith("files/spool/") for name in beginning)
    assert beginning.count("files/artifacts") == 1
    assert beginning.count("record.db-wal") < STEPS
    synced = synced_in(traces[SYNCED], run)
    came = len(exchanges(federation, run, SYNCED, "in"))
    assert came >= STEPS
    bodies = {name for name in synced if name.startswith("files/spool/")}
    assert len(bodies) == came  # each that came, once, before anybody is told
    assert synced.count("files/artifacts") >= came + STEPS  # their names, and those of the models that are made here
    assert synced.count("record.db-wal") >= STEPS  # each publication at least
