"""Every benchmark once, one after the other: `python -m benchmarks`.

`--quick` leaves out the large ones, `--huge` adds those of gigabytes (16 GiB of memory, 40 GB of disk in TMPDIR).
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from benchmarks import codecs, crowd, gossip, links, memory, reading, rounds, rules, simulation, startup, training

QUICK = (
    (rounds.main, "--nodes 4 --parameters 10000 --rounds 40"),
    (rounds.main, "--task digits --rounds 20"),
    (startup.main, "--repeat 3"),
    (training.main, ""),
    (codecs.main, ""),
    (rules.main, "--d 1000000"),
    (reading.main, "--quick"),
    (gossip.main, "--parameters 10000 --only push pair"),
)
LARGE = (
    (rounds.main, "--nodes 4 --parameters 25000000 --rounds 7"),
    (rounds.main, "--nodes 2 --parameters 11200000 --tensors 1 --rounds 7"),
    (rounds.main, "--nodes 2 --parameters 11200000 --tensors 122 --rounds 7"),
    (memory.main, "--nodes 4 8 16 --parameters 25000000"),
    (memory.main, "--nodes 16 --parameters 25000000 --rule krum --f 3"),
    (memory.main, "--nodes 16 --parameters 25000000 --rule trimmed-mean --f 3"),
    (rules.main, "--d 10000000"),
    (simulation.main, ""),
    (reading.main, ""),
    (links.main, ""),
    (links.main, "--only far --parameters 50000000 --nodes 1 --rounds 6"),
    (gossip.main, "--nodes 4 8 --durability process power"),
    (crowd.main, "--nodes 10 50 100 200 --rounds 5"),
)
HUGE = (
    (rounds.main, "--nodes 4 --parameters 250000000 --rounds 3 --timeout 1500"),
    (memory.main, "--nodes 4 --parameters 250000000 --rounds 2 --server-optimizer adam --timeout 1500"),
    (
        rounds.main,
        "--nodes 2 --parameters 1500000000 --dtype bfloat16 --codec bf16 --rounds 3 --no-floor --timeout 3600",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them all; exit code 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="leave out the models of tens of megabytes")
    size.add_argument("--huge", action="store_true", help="also the models of gigabytes")
    given = parser.parse_args(arguments)
    failures = 0
    for program, options in QUICK if given.quick else QUICK + LARGE + (HUGE if given.huge else ()):
        print(f"\n$ python -m {program.__module__} {options}", flush=True)
        failures += program(shlex.split(options))
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
