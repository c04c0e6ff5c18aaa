"""What adversaries among peers make of each gossip protocol: digits, all-to-all, simulated or on real processes.

    python -m benchmarks.peer_attacks --steps 12 --json attacks.json --page docs/results.md
    python -m benchmarks.peer_attacks --steps 12 --json attacks.json --page docs/results.md --processes

Simulated: 13 nodes, 2 of them adversaries. With `--processes`: 7 nodes, each a `covey gossip start` of its own over
mutual TLS, one of them with `--attack`. Each cell is the test accuracy of the mean of the honest nodes' final models,
weighted by their mass, and the largest distance of one of these from it (Euclidean). A protocol holds (bold) where the
accuracy is within 3 points of its own without adversaries. Data are independent, and adversaries know what they were
sent. Who lies about its mass is named by the audit of all nodes' records. There are as many adversaries as the bound of
nearest-neighbour averaging (n >= 6f + 1) bears.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.methods.page import update
from covey.client.experiments.gossip import gossip_plan, simulate
from covey.client.gossip_consensus import export_consensus
from covey.client.gossip_nodes import audit_accounts, read_account
from covey.client.gossip_receipts import authority_of
from covey.errors import CoveyError
from covey.gossip.protocols.dynamics import Dynamics
from covey.simulation.adversaries import Attack
from covey.spec import GossipSpec, parse_toml
from covey.testing.gossip import GossipNodes

HOLDS = 0.03
ROBUST = ("clipped-gossip", "nearest-neighbour-averaging", "trimmed-mean")
NONE, LYING_MASS = "none", "lying-mass"
ATTACKS: dict[str, dict[str, Any]] = {
    NONE: {},
    "constant": {"value": 100.0},
    "sign-flip": {},
    "alie": {},
    "dissensus": {},
    LYING_MASS: {},
}
UNIFORM, METROPOLIS = 'mixing = { name = "uniform" }\n', 'mixing = { name = "metropolis-hastings" }\n'
COMPLETE = 'topology = { name = "complete" }\n'
SECTIONS = {
    "sgp": UNIFORM + COMPLETE,
    "agp": UNIFORM + COMPLETE,
    "d-psgd": METROPOLIS + COMPLETE,
    "epidemic": UNIFORM + 'topology = { name = "random" }\n',
    "gradient-tracking": UNIFORM + COMPLETE,
    "noloco": 'topology = { name = "matching" }\n',
    "ad-psgd": 'topology = { name = "random", options = { peers = 1 } }\njoin = "mint"\n',
    **dict.fromkeys(ROBUST, METROPOLIS + COMPLETE),
}
"""[gossip] of each row."""
SPEC = """
name = "peer-attacks"
mode = "gossip"
seed = 3
[task]
name = "digits"
[training]
local_steps = 2
learning_rate = 0.5
[gossip]
steps = {steps}
min_nodes = {nodes}
protocol = {protocol}
"""
TIMEOUT_S = 900.0
Cell = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """What one cell is measured with.

    Attributes:
        nodes: In all.
        adversaries: How many of them, the last ones.
        steps: Of each node.
    """

    nodes: int
    adversaries: int
    steps: int

    def specification(self, protocol: str) -> str:
        """The run of one row."""
        robust = protocol in ROBUST
        name = f'{{ name = "{protocol}", options = {{ f = {self.adversaries} }} }}' if robust else f'"{protocol}"'
        return SPEC.format(steps=self.steps, nodes=self.nodes, protocol=name) + SECTIONS[protocol]

    def attacks_on(self, protocol: str) -> list[str]:
        """Those that say anything: where the receiver weighs, mass does not count."""
        spec = parse_toml(self.specification(protocol))
        if not isinstance(spec, GossipSpec):
            raise TypeError(spec.mode)
        weighs = Dynamics.of(spec.gossip).weighs
        return [attack for attack in ATTACKS if attack != LYING_MASS or weighs == "mass"]


def simulated(protocol: str, attack: str, work: Work, folder: Path) -> Cell:
    """One cell, in virtual time."""
    (folder / "run.toml").write_text(work.specification(protocol))
    attacks = [] if attack == NONE else [Attack(attack, work.adversaries, ATTACKS[attack])]
    outcome = simulate(gossip_plan(folder / "run.toml", work.nodes, data_dir=folder / "out", attacks=attacks))
    distances = [peer.distance for peer in outcome.peers if peer.distance is not None]
    named = [each.who.node for each in outcome.mass.named]
    return {"accuracy": outcome.metrics.get("accuracy", 0.0), "spread": max(distances), "named": named}


def real(protocol: str, attack: str, work: Work, folder: Path) -> Cell:
    """One cell, of `covey gossip start` processes."""
    drill = ["--attack", attack] + [f"--attack-option={name}={value}" for name, value in ATTACKS[attack].items()]
    honest = work.nodes - (0 if attack == NONE else work.adversaries)
    with GossipNodes(folder, work.specification(protocol), work.nodes) as nodes:
        for index in range(work.nodes):
            nodes.start(index, options=drill if index >= honest else ())
        nodes.wait(TIMEOUT_S)
    folders = [folder / name for name in nodes.names]
    mean = export_consensus(folders[:honest], folder / "mean.safetensors", evaluated=True)
    mass = audit_accounts([read_account(each) for each in folders], authority_of(folders, None))
    named = [each.who.node for each in mass.named]
    return {"accuracy": mean.metrics["accuracy"], "spread": mean.spread, "named": named}


def table(cells: Mapping[str, Cell]) -> list[str]:
    """The cells (by `PROTOCOL/ATTACK`) as Markdown."""
    columns = [attack for attack in ATTACKS if any(key.endswith(f"/{attack}") for key in cells)]
    lines = [f"| protocol | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for protocol in SECTIONS:
        row = {attack: cells.get(f"{protocol}/{attack}") for attack in columns}
        if any(row.values()):
            lines.append(f"| `{protocol}` | {' | '.join(_cell(cell, row.get(NONE)) for cell in row.values())} |")
    return lines


def _cell(cell: Cell | None, without: Cell | None) -> str:
    if cell is None:
        return "-"
    text = f"{cell['accuracy']:.3f} ({cell['spread']:.2g})"
    holds = without is not None and cell["accuracy"] >= without["accuracy"] - HOLDS
    named = f", named: {', '.join(cell['named'])}" if cell["named"] else ""
    return (f"**{text}**" if holds else text) + named


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; each cell is printed as it is done. Exit code 1 if one failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peer_attacks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--processes", action="store_true", help="real nodes, each a process")
    parser.add_argument("--nodes", type=int, help="default: 13, with --processes 7")
    parser.add_argument("--adversaries", type=int, help="default: 2, with --processes 1")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--protocols", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--attacks", nargs="+", choices=list(ATTACKS), default=list(ATTACKS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="cells; what is there is not measured again")
    parser.add_argument("--page", type=Path, metavar="FILE", help="also replace the table of this page")
    given = parser.parse_args(arguments)
    nodes, adversaries = (7, 1) if given.processes else (13, 2)
    work = Work(given.nodes or nodes, given.adversaries or adversaries, given.steps)
    measure: Callable[[str, str, Work, Path], Cell] = real if given.processes else simulated
    kind = "real processes" if given.processes else "simulated"
    title = f"{work.nodes} nodes ({kind}), adversaries: {work.adversaries}, {work.steps} steps."
    known: dict[str, dict[str, Cell]] = json.loads(given.json.read_text()) if given.json and given.json.exists() else {}
    cells, failed = known.setdefault(title, {}), 0
    for protocol in given.protocols:
        for attack in work.attacks_on(protocol):
            key = f"{protocol}/{attack}"
            if attack not in given.attacks or key in cells:
                continue
            try:
                with tempfile.TemporaryDirectory(prefix="covey-peer-attacks-") as folder:
                    cells[key] = measure(protocol, attack, work, Path(folder))
            except CoveyError as error:
                print(f"error: {key}: {error}", file=sys.stderr)
                failed = 1
                continue
            print(f"{key}: {json.dumps(cells[key])}", flush=True)
            if given.json:
                given.json.write_text(json.dumps(known, indent=1))
    lines = [title, "", *table(cells)]
    print("\n".join(["", *lines]))
    if given.page:
        update(given.page, "peer-attacks-processes" if given.processes else "peer-attacks", lines)
    return failed


if __name__ == "__main__":
    sys.exit(main())
