"""Several runs at once on the same nodes, and in turn: how long both take, and whether each comes to its own model.

    python -m benchmarks.measuring.several_runs
    python -m benchmarks.measuring.several_runs --runs 3 --nodes 4 --rounds 8

Daemons on this machine; the first run is not measured, and warms them up. Seconds are by the store's times, from the
first submission to the last end. The load of the machine before is said: on a busy one seconds mean little, and the
digests as much as ever.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from covey.testing.federation import Federation

TIMEOUT_S = 1800.0
SPEC = """
name = "seed-{seed}"
seed = {seed}
[task]
name = "digits"
options = {{ hidden = 64 }}
[training]
learning_rate = 0.1
batch_size = 32
[rounds]
count = {rounds}
min_nodes = {nodes}
"""
POLICY = "[policy]\nmax_runs = {runs}\n"


@dataclass(frozen=True)
class Both:
    """What was measured.

    Attributes:
        in_turn_s: Seconds of the runs one after another.
        at_once_s: Seconds of the same at once.
        in_turn: Their models' SHA-256, by seed.
        at_once: The same.
        most_open: Of how many runs a round was open at the same time.
    """

    in_turn_s: float
    at_once_s: float
    in_turn: tuple[str, ...]
    at_once: tuple[str, ...]
    most_open: int

    @property
    def is_same(self) -> bool:
        """Whether each run came to the model that it has alone, and they did work at once."""
        return self.in_turn == self.at_once and self.most_open == len(self.at_once)


def measure(folder: Path, runs: int, nodes: int, rounds: int) -> Both:
    """Do both on one federation.

    Args:
        folder: Where it lives; empty.
        runs: How many, of seeds 1, 2, ...
        nodes: How many of them there are; each takes part in all.
        rounds: Of each run.
    """
    texts = [SPEC.format(seed=seed, rounds=rounds, nodes=nodes) for seed in range(1, runs + 1)]
    with Federation(folder, nodes=nodes) as federation:
        federation.start_coordinator(options=["--max-runs", str(runs)])
        federation.join()
        for index in range(nodes):
            (federation.node_dir(index) / "node.toml").write_text(POLICY.format(runs=runs))
            federation.start_node(index)
        federation.wait_connected(nodes)
        _ends(federation, [federation.submit(SPEC.format(seed=0, rounds=1, nodes=nodes))])
        turns = [_ends(federation, [federation.submit(text)])[0] for text in texts]
        together = _ends(federation, [federation.submit(text) for text in texts])
        spans = [
            (opened[0]["started_at"], opened[-1]["committed_at"])
            for opened in (federation.rounds(run) for run, *_ in together)
        ]
    most = max(sum(start <= began < end for start, end in spans) for began, _ in spans)
    return Both(
        sum(end - start for _, start, end, _ in turns),
        max(end for _, _, end, _ in together) - min(start for _, start, _, _ in together),
        tuple(sha for *_, sha in turns),
        tuple(sha for *_, sha in together),
        most,
    )


def _ends(federation: Federation, runs: Sequence[str]) -> list[tuple[str, float, float, str]]:
    """Of each run, once all have ended: its id, when it was submitted and when it ended, and its model."""
    shown = [federation.wait(run, timeout_s=TIMEOUT_S) for run in runs]
    return [(run["run"], run["submitted_at"], run["ended_at"], str(run["model_sha256"])) for run in shown]


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; exit code 1: a run came to another model than alone, or they did not work at once."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.measuring.several_runs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=3, choices=range(2, 17), metavar="2 to 16")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args(arguments)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="covey-several-") as folder:
        both = measure(Path(folder), given.runs, given.nodes, given.rounds)
    for alone, beside in zip(both.in_turn, both.at_once, strict=True):
        print(f"{alone[:16]} alone, {beside[:16]} beside others: {'the same' if alone == beside else 'DIFFERENT'}")
    print(f"{given.runs} runs of {given.rounds} rounds on {given.nodes} nodes, {both.most_open} at once")
    print(f"in turn {both.in_turn_s:.1f} s, at once {both.at_once_s:.1f} s: {both.at_once_s / both.in_turn_s:.2f}")
    return 0 if both.is_same else 1


if __name__ == "__main__":
    sys.exit(main())
