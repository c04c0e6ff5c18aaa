"""How long a round takes on real daemons, beside the floor: mutual TLS and durable updates on.

    python -m benchmarks.rounds --nodes 4 --parameters 10000 --rounds 30
    python -m benchmarks.rounds --nodes 4 --parameters 25000000 --rounds 6
    python -m benchmarks.rounds --nodes 2 --parameters 11200000 --tensors 122 --rounds 8
    python -m benchmarks.rounds --task digits --rounds 20
    python -m benchmarks.rounds --nodes 2 --parameters 1500000000 --dtype bfloat16 --codec bf16 --still --rounds 3

`--json` prints one line; its fields are those of `benchmarks.measuring.federation.Measured.as_json`. A round's time is
the difference between two commits in the store; the first round is left out.
"""

from __future__ import annotations

import argparse
import json
import pstats
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.measuring.aims import Line, report
from benchmarks.measuring.federation import Measured, Work, measure
from covey.errors import CoveyError

PROFILE_LINES = 30
NO_TERMINAL_COLUMNS = 150


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rounds", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--parameters", type=int, default=10_000, help="float32 values of the synthetic model")
    parser.add_argument("--tensors", type=int, default=1, help="in how many tensors they are")
    parser.add_argument("--rounds", type=int, default=20, help="the first one is left out of the times")
    parser.add_argument("--task", choices=("synthetic", "digits"), default="synthetic")
    add_exchange(parser)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--still", action="store_true", help="training changes nothing")
    parser.add_argument("--no-floor", action="store_true", help="do not measure the floor")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="for the whole run")
    parser.add_argument("--root", type=Path, help="keep data and logs in this new folder")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="run the coordinator under cProfile")
    parser.add_argument("--keep-going", action="store_true", help="report what there is if the run fails")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    if given.nodes < 1 or given.rounds < 3 or given.parameters < given.tensors or given.tensors < 1:
        parser.error("needs at least 1 node, 3 rounds, 1 tensor, and a parameter for each tensor")
    return given


def add_exchange(parser: argparse.ArgumentParser) -> None:
    """Options that say how updates are combined and coded."""
    parser.add_argument("--rule", default="mean", help="the aggregator")
    parser.add_argument("--f", type=int, help="how many Byzantine nodes the rule assumes")
    parser.add_argument("--codec", default="none")
    parser.add_argument("--server-optimizer", default="sgd")


def work_of(given: argparse.Namespace) -> Work:
    """What the command line asks for."""
    return Work(
        nodes=given.nodes,
        parameters=given.parameters,
        tensors=given.tensors,
        rounds=given.rounds,
        task=given.task,
        floor=not given.no_floor,
        timeout_s=given.timeout,
        profile=given.profile.absolute() if given.profile else None,
        root=given.root.absolute() if given.root else None,
        keep_going=given.keep_going,
        rule=given.rule,
        f=given.f,
        codec=given.codec,
        server_optimizer=given.server_optimizer,
        dtype=given.dtype,
        still=given.still,
    )


def table(measured: Measured) -> Table:
    """The report for people."""
    work = measured.work
    size = f"{work.model_bytes / 1e6:,.2f} MB" + (f" in {work.tensors} tensors" if work.tensors > 1 else "")
    title = f"{work.task}: {work.nodes} nodes, {size}, {len(measured.times_s)} rounds after the first"
    rows = Table("", "measured", "aim on 2 cores", "", "peers, measured on 2 cores", title=title)
    for line in report(measured):
        rows.add_row(line.name, line.value, line.aim, _verdict(line), line.peers)
    return rows


def console() -> Console:
    """Standard output, wide enough for a report where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else NO_TERMINAL_COLUMNS)


def _verdict(line: Line) -> str:
    if line.met is None:
        return ""
    return "[green]met[/green]" if line.met else "[red]missed[/red]"


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; exit code 1 if the run did not complete."""
    given = parse_arguments(arguments)
    try:
        measured = measure(work_of(given))
    except (CoveyError, RuntimeError, TimeoutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps(measured.as_json()))
    else:
        console().print(table(measured))
    if measured.failure:
        print(f"error: {measured.failure}", file=sys.stderr)
    if given.profile:
        pstats.Stats(str(given.profile), stream=sys.stderr).sort_stats("tottime").print_stats(PROFILE_LINES)
    return 1 if measured.failure else 0


if __name__ == "__main__":
    sys.exit(main())
