"""Makes the upgrade dump of a gossip run: `python tests/upgrade/make_gossip_dump.py tests/upgrade/data/VERSION/gossip`.

Three nodes without a coordinator, killed (`kill -9`) in mid-exchange, with batches on their way and notes that are in
no snapshot; and what must come of it: the models of the same run in one process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from make_dumps import commit, pack

import covey
from covey.testing.gossip import GossipNodes

NODES = 3
SPEC = """
name = "gossip"
mode = "gossip"
seed = 5
[task]
name = "digits"
[data]
partition = "shards"
[training]
local_steps = 1
[gossip]
steps = 8
min_nodes = 3
topology = { name = "ring", options = { directions = 2 } }
"""
POINTS = {0: "gossip-sending:5", 1: "gossip-note-recorded:5"}
"""Node to the fault point that kills it, both in the third step; the last node is killed when both are dead."""
WAIT_S = 200.0


def main(out: Path) -> None:
    """Make the dump and its facts."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="covey-gossip-dump-") as folder:
        root = Path(folder) / "nodes"
        with GossipNodes(root, SPEC, NODES) as nodes:
            for index in range(NODES):
                nodes.start(index, env={"COVEY_FAULTS": POINTS[index]} if index in POINTS else {})
            for index in POINTS:
                if nodes.daemon(index).wait(WAIT_S) != -9:
                    raise SystemExit(f"n{index} ended otherwise than by its fault point:\n{nodes.daemon(index).tail()}")
            nodes.kill(NODES - 1)
            steps = [nodes.steps(index) for index in range(NODES)]
            waiting = [waiting_of(nodes, index) for index in range(NODES)]
        pack(root, out / "killed.tar.gz")
        facts = {
            "covey": {"version": covey.__version__, "commit": commit()},
            "nodes": NODES,
            "specification": SPEC,
            "steps": steps,
            "waiting": waiting,
            "models": simulated(Path(folder)),
        }
    (out / "killed.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(f"stopped at steps {steps}, batches on their way {waiting}")


def waiting_of(nodes: GossipNodes, index: int) -> int:
    """How many batches of a node are not acknowledged."""
    status = json.loads(nodes.cli("gossip", "status", "--data-dir", nodes.folder(index), "--json"))
    return sum(1 for edge in status["account"]["edges"] if edge["waiting"])


def simulated(folder: Path) -> list[str]:
    """The models of the same run, undisturbed, in one process."""
    (folder / "run.toml").write_text(SPEC)
    command = [sys.executable, "-m", "covey", "gossip", "simulate", str(folder / "run.toml"), "--json"]
    done = subprocess.run([*command, "--nodes", str(NODES)], capture_output=True, text=True, check=True)
    outcome: dict[str, Any] = json.loads(done.stdout)
    return [peer["model_sha256"] for peer in outcome["peers"]]


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
