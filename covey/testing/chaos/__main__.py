"""Seeded chaos: a real federation whose processes, machines, links and data fail while runs go on.

    python -m covey.testing.chaos                            two minutes, a seed of its own
    python -m covey.testing.chaos --seed 7 --minutes 10 --nodes 4
    python -m covey.testing.chaos --works rounds --rounds 2000 --laps 1 --retain --minutes 60
    python -m covey.testing.chaos --faults kill-node cut-link suspend --pause 0.5 --json
    python -m covey.testing.chaos --faults suspend stall-link --stretch 10 --minutes 10

Synchronous runs are made once undisturbed; then all are, again and again, while faults strike, until the minutes are
over and the last ones have ended. Then every synchronous run without exclusions has the undisturbed model,
`covey run audit` and `covey run replay` find nothing, each update was decided on once, event logs replay, no log has a
traceback, and processes and disks hold no more than before, beyond what runs are told to keep. Exit code 1 if not, with
the reason, the command that strikes in the same way again, and the folder with logs, event logs and record.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from covey.testing.chaos.chase import Chase, Plan
from covey.testing.chaos.kinds import KINDS
from covey.testing.chaos.report import as_json, command_of, print_report
from covey.testing.chaos.schedule import MEAN_PAUSE_S
from covey.testing.chaos.works import PARAMETERS, WORKS
from covey.testing.launch import forks


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    given = _parser().parse_args(arguments)
    root = Path(given.root) if given.root else Path(tempfile.mkdtemp(prefix="covey-chaos-"))
    plan = Plan(
        root=root,
        seed=secrets.randbelow(1 << 31) if given.seed is None else given.seed,
        minutes=given.minutes,
        laps=given.laps,
        nodes=given.nodes,
        rounds=given.rounds,
        parameters=given.parameters,
        works=given.works,
        kinds=given.faults,
        mean_pause_s=given.pause,
        stretch=given.stretch,
        keep_all=not given.retain,
        fork=not given.execute,
    )
    if plan.fork:
        forks.enable()
    outcome = Chase(plan, lambda line: print(line, file=sys.stderr, flush=True)).run()
    kept = str(root) if outcome.problems or given.root else None
    if given.json:
        print(json.dumps(as_json(plan, outcome, kept)))
    else:
        print_report(Console(), outcome)
        _conclude(plan, outcome.problems)
    if kept is None:
        shutil.rmtree(root)
    return int(bool(outcome.problems))


def _conclude(plan: Plan, problems: Sequence[str]) -> None:
    if not problems:
        print(f"all holds (seed {plan.seed})")
        return
    for problem in problems:
        print(f"problem: {problem}")
    print(f"logs, event logs (coordinator/events, nodes/*/events) and record are in {shlex.quote(str(plan.root))}")
    print(f"to strike in the same way again: {command_of(plan)}")


def _parser() -> argparse.ArgumentParser:
    works = "\n".join(f"  {work.name:24} {work.text}" for work in WORKS.values())
    kinds = "\n".join(f"  {name:24} {kind.text}" for name, kind in KINDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m covey.testing.chaos",
        description=__doc__,
        epilog=f"runs:\n{works}\n\nfaults:\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, help="of the faults; default: drawn, and printed")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long faults strike (default 2)")
    parser.add_argument("--laps", type=int, help="at most so many times all runs; default: until the minutes are over")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=40, help="of each run (default 40)")
    parser.add_argument("--parameters", type=int, default=PARAMETERS, help="of synthetic models (default 20000: 80 kB)")
    parser.add_argument("--pause", type=float, default=MEAN_PAUSE_S, metavar="SECONDS", help="mean time between faults")
    parser.add_argument("--stretch", type=float, default=1.0, metavar="TIMES", help="how much longer faults last")
    parser.add_argument("--works", nargs="+", choices=tuple(WORKS), default=tuple(WORKS), metavar="RUN")
    parser.add_argument("--faults", nargs="+", choices=tuple(KINDS), default=tuple(KINDS), metavar="FAULT")
    parser.add_argument("--retain", action="store_true", help="runs keep the usual updates only; they are not replayed")
    parser.add_argument(
        "--execute", action="store_true", help="start daemons as programs, not as copies of one process"
    )
    parser.add_argument("--root", metavar="FOLDER", help="where the federation lives; it is kept")
    parser.add_argument("--json", action="store_true", help="one object on standard output; progress on standard error")
    return parser


if __name__ == "__main__":
    sys.exit(main())
