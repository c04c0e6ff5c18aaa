"""Run one part or all: `python -m benchmarks.methods [PART...] [--quick] [--json FILE]`.

`--page docs/results.md` also replaces the tables of that page.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.methods.data import NoData, everything
from benchmarks.methods.page import update
from benchmarks.methods.pool import Record, part_module, run_part

PARTS = (
    "matrix",
    "stochastic-sign",
    "dq-sgd",
    "dampening",
    "block-momentum",
    "representations",
    "conflicting-labels",
    "codistillation",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="one seed and a tenth of the steps: does it run")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="trainings at a time")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write every outcome here; what is there is not measured again"
    )
    parser.add_argument("--only", metavar="NAME", help="one method or setting of each part, by its name in the table")
    parser.add_argument("--page", type=Path, metavar="FILE", help="also replace the tables of this page")
    given = parser.parse_args(arguments)
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part is named {unknown[0]!r}; choose {', '.join(PARTS)}")
    if given.only and given.page:
        parser.error("--page has whole tables; leave --only out, with a --json FILE that has all outcomes")
    try:
        everything("train")
    except NoData as error:
        print(error, file=sys.stderr)
        return 1
    record = Record(given.json)
    for part in given.parts or PARTS:
        outcomes, seconds = run_part(part, given.quick, given.processes, record, given.only)
        lines = [*(part_module(part).__doc__ or "").strip().splitlines(), "", *part_module(part).report(outcomes)]
        print("\n".join(["", f"## {part}", "", *lines]))
        print(f"\n{len(outcomes)} trainings in {seconds:.0f} s with {given.processes} processes.", flush=True)
        if given.page:
            update(given.page, part, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
