"""Seeded chaos: a real federation whose processes, machines, links and data fail while runs go on.

    python -m covey.testing.chaos                            two minutes, a seed of its own
    python -m covey.testing.chaos --seed 7 --minutes 10 --nodes 4
    python -m covey.testing.chaos --works rounds --rounds 2000 --laps 1 --retain --minutes 60
    python -m covey.testing.chaos --faults kill-node cut-link suspend --pause 0.5 --json
    python -m covey.testing.chaos --faults suspend stall-link --stretch 10 --minutes 10
    python -m covey.testing.chaos --works gossip --nodes 6 --minutes 30 --pause 30

Synchronous runs are made once undisturbed; then all are, again and again, while faults strike, until the minutes are
over and the last ones have ended. Then every synchronous run without exclusions has the undisturbed model,
`covey run audit` and `covey run replay` find nothing, each update was decided on once, event logs replay, no log has a
traceback, and processes and disks hold no more than before, beyond what runs are told to keep. Exit code 1 if not, with
the reason, the command that strikes in the same way again, and the folder with logs, event logs and record.

Gossip runs, one at a time, have nodes of their own without a coordinator, each behind relays to every other, beside an
undisturbed twin that runs at the same time. Trainings take `--pace` seconds without using the processor, so that the
machine is not what is measured. When the minutes are over, the steps that both have on record are compared (goodput),
both go to their end, all mass must be there (==), and the distance of the consensus models is said.
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
from covey.testing.chaos.gossip import trial
from covey.testing.chaos.gossip.report import TEXTS, GossipReport
from covey.testing.chaos.gossip.trial import PROTOCOLS, GossipPlan, Trial
from covey.testing.chaos.kinds import AMONG_PEERS, FEDERATED, KINDS
from covey.testing.chaos.report import FederatedReport
from covey.testing.chaos.schedule import MEAN_PAUSE_S
from covey.testing.chaos.works import PARAMETERS, WORKS
from covey.testing.launch import forks

NOT_AMONG_PEERS = ("rounds", "parameters", "laps", "retain")
ONLY_AMONG_PEERS = ("pace", "loss")


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = _parser()
    given = parser.parse_args(arguments)
    root = Path(given.root) if given.root else Path(tempfile.mkdtemp(prefix="covey-chaos-"))
    seed = secrets.randbelow(1 << 31) if given.seed is None else given.seed
    if not given.execute:
        forks.enable()
    among_peers = [name for name in given.works or () if name in PROTOCOLS]
    _require(parser, given, among_peers)
    report = _gossip(given, root, seed) if among_peers else _federated(given, root, seed)
    kept = str(root) if report.problems or given.root else None
    if given.json:
        print(json.dumps(report.as_json(kept)))
    else:
        report.print(Console())
        _conclude(report, seed, root)
    if kept is None:
        shutil.rmtree(root)
    return int(bool(report.problems))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _require(parser: argparse.ArgumentParser, given: argparse.Namespace, among_peers: Sequence[str]) -> None:
    """End with the reason where options do not go together."""
    if among_peers and len(given.works) > 1:
        parser.error(f"{among_peers[0]} has nodes of its own, and runs alone: name no other run")
    for name in NOT_AMONG_PEERS if among_peers else ONLY_AMONG_PEERS:
        if getattr(given, name):
            parser.error(f"--{name} says nothing about {'gossip runs' if among_peers else 'runs of a coordinator'}")
    able = AMONG_PEERS if among_peers else FEDERATED
    if unable := sorted(set(given.faults or ()) - set(able)):
        parser.error(f"{unable[0]} cannot strike here; choose of {', '.join(able)}")
    if not 0 <= (given.loss or 0) < 1:
        parser.error("--loss is the part of the messages that is lost: from 0 to less than 1")


def _federated(given: argparse.Namespace, root: Path, seed: int) -> FederatedReport:
    plan = Plan(
        root=root,
        seed=seed,
        minutes=given.minutes,
        laps=given.laps,
        nodes=given.nodes or 3,
        rounds=given.rounds or 40,
        parameters=given.parameters or PARAMETERS,
        works=given.works or tuple(WORKS),
        kinds=given.faults or FEDERATED,
        mean_pause_s=given.pause or MEAN_PAUSE_S,
        stretch=given.stretch,
        keep_all=not given.retain,
        fork=not given.execute,
    )
    return FederatedReport(plan, Chase(plan, _say).run())


def _gossip(given: argparse.Namespace, root: Path, seed: int) -> GossipReport:
    plan = GossipPlan(
        root=root,
        seed=seed,
        minutes=given.minutes,
        nodes=given.nodes or trial.NODES,
        work=given.works[0],
        pace_s=given.pace or trial.PACE_S,
        loss=given.loss or 0.0,
        kinds=AMONG_PEERS if given.faults is None else given.faults,
        mean_pause_s=given.pause or trial.MEAN_PAUSE_S,
        stretch=given.stretch,
        fork=not given.execute,
    )
    return GossipReport(plan, Trial(plan, _say).run())


def _conclude(report: FederatedReport | GossipReport, seed: int, root: Path) -> None:
    if not report.problems:
        print(f"all holds (seed {seed})")
        return
    for problem in report.problems:
        print(f"problem: {problem}")
    print(f"logs, event logs and records are in {shlex.quote(str(root))}")
    print(f"to strike in the same way again: {report.command}")


def _parser() -> argparse.ArgumentParser:
    texts = {name: work.text for name, work in WORKS.items()} | TEXTS
    works = "\n".join(f"  {name:24} {text}" for name, text in texts.items())
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
    parser.add_argument("--nodes", type=int, help="default 3; of gossip runs 6, and as many of the twin")
    parser.add_argument("--rounds", type=int, help="of each run (default 40)")
    parser.add_argument("--parameters", type=int, help="of synthetic models (default 20000: 80 kB)")
    parser.add_argument(
        "--pause", type=float, metavar="SECONDS", help="mean time between faults (default 1.5; gossip runs: 3)"
    )
    parser.add_argument("--pace", type=float, metavar="SECONDS", help="of a training in gossip runs (default 1)")
    parser.add_argument("--loss", type=float, metavar="PART", help="of all messages of a gossip run (default 0)")
    parser.add_argument("--stretch", type=float, default=1.0, metavar="TIMES", help="how much longer faults last")
    parser.add_argument(
        "--works", nargs="+", choices=(*WORKS, *PROTOCOLS), metavar="RUN", help="default: all of a coordinator"
    )
    parser.add_argument(
        "--faults", nargs="*", choices=tuple(KINDS), metavar="FAULT", help="default: all that can strike there"
    )
    parser.add_argument("--retain", action="store_true", help="runs keep the usual updates only; they are not replayed")
    parser.add_argument(
        "--execute", action="store_true", help="start daemons as programs, not as copies of one process"
    )
    parser.add_argument("--root", metavar="FOLDER", help="where the federation lives; it is kept")
    parser.add_argument("--json", action="store_true", help="one object on standard output; progress on standard error")
    return parser


if __name__ == "__main__":
    sys.exit(main())
