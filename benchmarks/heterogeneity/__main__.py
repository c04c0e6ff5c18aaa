"""Methods for nodes whose labels differ, on MNIST in Dirichlet splits: `python -m benchmarks.heterogeneity`.

python -m benchmarks.heterogeneity --json FILE          # goes on where FILE ends; every run is saved as it ends
python -m benchmarks.heterogeneity --json FILE --report # the tables of what FILE has

In simulation. Data split, model and settings of Zhu, Hong and Zhou, "Data-Free Knowledge Distillation for Heterogeneous
Federated Learning" (ICML 2021) and their code. Paired seeds: methods that are compared see the same split, first model,
nodes and batches. The score is the mean of the last five evaluations, never the best. `client` is the paper's metric
(each node's test images have the labels that it trains on only), `global` is all test images. BatchNorm statistics are
averaged with the model here; in the authors' code each client keeps its own. FedDistill+ shares the model, too. Needs
MNIST's files in COVEY_DATA/mnist or ../shared/data/mnist.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.heterogeneity.report import report
from benchmarks.heterogeneity.runs import ROUNDS, cases, run
from benchmarks.methods.data import NoData, everything
from benchmarks.methods.page import update
from benchmarks.methods.pool import Record
from covey.telemetry import configure_logging

PART = "heterogeneity"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the runs that are missing, one after the other, and print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.heterogeneity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep outcomes here; what is there is not run again")
    parser.add_argument("--only", metavar="NAME", help="one method, or one split such as 'alpha 0.1'")
    parser.add_argument("--seeds", type=int, metavar="N", help="the first N seeds only")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of a run; fewer only to see whether it works")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--page", type=Path, metavar="FILE", help=f"replace the part {PART} of this page")
    given = parser.parse_args(arguments)
    try:
        everything("train")
    except NoData as error:
        print(error, file=sys.stderr)
        return 1
    configure_logging("console", "warning")
    record = Record(given.json)
    for case in [] if given.report else cases():
        is_wanted = given.only in (None, case.method, case.setting) and (given.seeds is None or case.seed < given.seeds)
        if not is_wanted or case in record.of(PART):
            continue
        began = time.monotonic()
        outcome = run(case, given.rounds)
        record.add(PART, case, outcome)
        score, seconds = outcome["client_accuracy"], time.monotonic() - began
        print(f"{case.setting}, {case.method}, seed {case.seed}: {score:.2f} ({seconds:.0f} s)", flush=True)
    lines = report(record.of(PART))
    print("\n".join(lines))
    if given.page:
        update(given.page, PART, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
