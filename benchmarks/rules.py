"""What each rule costs: the time of its whole direction as a multiple of the mean's, and its memory beyond the rows.

    python -m benchmarks.rules
    python -m benchmarks.rules --n 20 --d 1000000 --d 10000000 --json
    python -m benchmarks.rules --rule median --rule krum --repeat 15 --no-memory

Every installed aggregator is measured, and nearest-neighbour mixing before the trimmed mean, in a second round (so that
what a rule keeps is there), on one thread. The rows are in a mapped file, in the page cache. A mean is timed before
each run of a rule, and the multiple is the median of these pairs' quotients, so that a machine that is slow for a while
is slow for both; times are CPU time, which on an idle machine is the time.

Memory is the most that a process of its own has come to hold while it made the direction, pages of files left out. A
rule with trusted data gets some that cost nothing: only the rule's own work is measured.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from benchmarks.measuring.proc import available_memory_mb, usage_of
from benchmarks.rounds import console
from covey.aggregation.composition import Composed
from covey.aggregation.contract import AGGREGATORS, PRE_AGGREGATORS, Aggregate, AggregationContext, Aggregator
from covey.aggregation.matrix import Row, UpdateMatrix
from covey.errors import CoveyError
from covey.plugins import Kind, T
from covey.vectors import BLOCK_ELEMENTS, TensorVector, Vector, spans

FLOAT_BYTES = 4
MIXED = "nearest-neighbour-mixing + trimmed-mean"
AIMS = {
    "krum": 6.0,
    "multi-krum": 6.0,
    "geometric-median": 8.0,
    "median": 6.0,
    "trimmed-mean": 9.0,
    "centered-clip": 6.0,
    MIXED: 22.0,
    "bulyan": 40.0,
}
BLOCKS_HELD = 2.0
"""The aim for memory: so many slabs of all rows, `BLOCK_ELEMENTS` wide, whatever the model's size."""
SAMPLE_S = 0.001
WARM_COLUMNS = 1 << 12
CHILD_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Work:
    """One matrix.

    Attributes:
        n: Rows.
        d: Columns.
        f: What every rule that assumes Byzantine nodes assumes.
        folder: Where its files are.
    """

    n: int
    d: int
    f: int
    folder: Path

    @property
    def blocks_mb(self) -> float:
        """The memory aim, 1e6 bytes."""
        return BLOCKS_HELD * self.n * BLOCK_ELEMENTS * FLOAT_BYTES / 1e6


@dataclass(frozen=True)
class Measured:
    """What was found of one rule on one matrix.

    Attributes:
        rule: Its name.
        times: Its time over the mean's.
        median_s: Its own time.
        memory_mb: The most it came to hold, 1e6 bytes; None: not measured.
        aim: For `times`; None: there is none.
        skipped: Why it was not measured; empty if it was.
    """

    rule: str
    times: float = 0.0
    median_s: float = 0.0
    memory_mb: float | None = None
    aim: float | None = None
    skipped: str = ""


class FreeRoot:
    """Trusted data that cost nothing: an update that is there already, and a loss of the first columns alone."""

    def __init__(self, update: Tensor) -> None:
        self._update = update

    def update(self) -> Tensor:
        return self._update

    def loss(self, step: Vector | None) -> float:
        if step is None:
            return 0.0
        first = slice(0, min(step.d, WARM_COLUMNS))
        return float((step.read(first) - self._update[first]).square().sum())


def names() -> list[str]:
    """All rules that can be measured."""
    return [*(plugin.name for plugin in AGGREGATORS.installed()), MIXED]


def rule_of(name: str, f: int) -> Aggregator | Composed:
    """A rule with this f where it assumes one, and its defaults.

    Raises:
        PluginError: No such rule.
    """
    pre, _, last = name.rpartition(" + ")
    rule = _made(AGGREGATORS, last, f)
    return Composed([_made(PRE_AGGREGATORS, pre, f)], rule) if pre else rule


def _made(kind: Kind[T], name: str, f: int) -> T:
    return kind.make(name, {"f": f} if "f" in kind.load(name).Options.model_fields else {})


def write_rows(work: Work) -> None:
    """Write n rows around a common vector, and that vector as the last one."""
    rows = _rows(work, writable=True)
    generator = torch.Generator().manual_seed(1)
    for columns in spans(work.d, BLOCK_ELEMENTS):
        common = torch.randn(columns.stop - columns.start, generator=generator)
        for row in rows[:-1]:
            row[columns] = common + torch.randn(len(common), generator=generator)
        rows[-1, columns] = common


def _rows(work: Work, *, writable: bool = False) -> Tensor:
    path, size = str(work.folder / "rows"), (work.n + 1) * work.d
    return torch.from_file(path, shared=writable, size=size).view(work.n + 1, work.d)


class Bench:
    """A matrix in a mapped file, and a way to apply rules to it.

    Args:
        work: With its rows written.
        columns: How many of the columns are used; by default all.
    """

    def __init__(self, work: Work, columns: int | None = None) -> None:
        self._work, self.d = work, min(columns or work.d, work.d)
        rows = _rows(work)[:, : self.d]
        self._rows, self._root = rows[:-1], FreeRoot(rows[-1])
        self.nodes = tuple(f"node-{i:04}" for i in range(work.n))

    def keep(self, name: str) -> None:
        """Apply a rule in a first round, and write what it keeps."""
        for key, vector in self._aggregate(rule_of(name, self._work.f), {}, number=1).state.items():
            vector.dense().numpy().tofile(self._file(name, key))

    def state(self, name: str) -> dict[str, Tensor]:
        """What a rule has kept of the first round, from mapped files."""
        vectors = {}
        for key in rule_of(name, self._work.f).state_names:
            file = self._file(name, key)
            vectors[key] = torch.from_file(str(file), shared=False, size=file.stat().st_size // FLOAT_BYTES)
        return {key: vector[: self.d] for key, vector in vectors.items()}

    def walk(self, name: str, state: Mapping[str, Tensor]) -> None:
        """Make the whole direction of a second round."""
        direction = self._aggregate(rule_of(name, self._work.f), state, number=2).direction
        for columns in spans(self.d, BLOCK_ELEMENTS):
            direction.read(columns)

    def _aggregate(self, rule: Aggregator | Composed, state: Mapping[str, Tensor], number: int) -> Aggregate:
        # A matrix keeps its Gram matrix, so each run needs one of its own.
        rows = [
            Row(node, 1 / len(self.nodes), TensorVector(row)) for node, row in zip(self.nodes, self._rows, strict=True)
        ]
        losses = dict.fromkeys(self.nodes, 1.0)
        context = AggregationContext(number, seed=0, root=self._root, roster=self.nodes, losses=losses)
        return rule.aggregate(UpdateMatrix(rows), state, context)

    def _file(self, name: str, key: str) -> Path:
        return self._work.folder / f"{name} {key}"


def time_rules(work: Work, rules: Sequence[str], repeat: int, channel: Connection) -> None:
    """In a process of its own: send for each rule the pairs (mean's seconds, its own)."""
    torch.set_num_threads(1)
    bench = Bench(work)
    states = {name: bench.state(name) for name in rules}
    for name in rules:
        bench.walk(name, states[name])
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in rules}
    for _ in range(repeat):
        for name in rules:
            pairs[name].append((_timed(bench, "mean", {}), _timed(bench, name, states[name])))
    channel.send(pairs)


def _timed(bench: Bench, name: str, state: Mapping[str, Tensor]) -> float:
    start = time.process_time()
    bench.walk(name, state)
    return time.process_time() - start


def hold_rule(work: Work, name: str, channel: Connection) -> None:
    """In a process of its own: warm up on a few columns, say so, wait, make the direction, say so."""
    torch.set_num_threads(1)
    few = Bench(work, WARM_COLUMNS)
    few.walk(name, few.state(name))
    bench = Bench(work)
    state = bench.state(name)
    channel.send("warm")
    channel.recv()
    bench.walk(name, state)
    channel.send("done")


def growth_mb(work: Work, name: str) -> float:
    """By how much the memory of a process grows at most while it makes a rule's direction, 1e6 bytes."""
    with _Child(hold_rule, work, name) as child:
        child.receive()
        before = peak = child.private_mb()
        child.channel.send("go")
        while not child.channel.poll(SAMPLE_S):
            peak = max(peak, child.private_mb())
        child.receive()
    return peak - before


class _Child:
    """A fresh process with a pipe to it."""

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self.channel, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(*arguments, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def receive(self) -> Any:
        """The next message.

        Raises:
            RuntimeError: There is none: the process ended, or takes too long.
        """
        try:
            if self.channel.poll(CHILD_TIMEOUT_S):
                return self.channel.recv()
        except EOFError:
            pass
        raise RuntimeError("a measuring process gave no answer; its error is above")

    def private_mb(self) -> float:
        """Its anonymous memory."""
        usage = usage_of(self._process.pid or 0)
        return usage.private_mb if usage else 0.0

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        self._process.join(timeout=5)
        self._process.kill()
        self._process.join()


def measure(work: Work, rules: Sequence[str], repeat: int, *, memory: bool) -> list[Measured]:
    """Measure these rules, in this order."""
    write_rows(work)
    skipped = {name: reason for name in rules if (reason := _reason(name, work))}
    used = [name for name in rules if name not in skipped]
    bench = Bench(work)
    for name in used:
        bench.keep(name)
    with _Child(time_rules, work, used, repeat) as child:
        pairs = child.receive()
    held = {name: growth_mb(work, name) for name in used} if memory else {}
    return [
        Measured(name, skipped=skipped[name]) if name in skipped else _summary(name, pairs[name], held.get(name))
        for name in rules
    ]


def _reason(name: str, work: Work) -> str:
    needed = rule_of(name, work.f).min_updates()
    return f"needs {needed} updates with f = {work.f}" if needed > work.n else ""


def _summary(name: str, pairs: Sequence[tuple[float, float]], memory_mb: float | None) -> Measured:
    times = statistics.median(own / mean for mean, own in pairs)
    own = statistics.median(own for _, own in pairs)
    return Measured(name, round(times, 2), own, memory_mb, AIMS.get(name))


def table(work: Work, measured: Sequence[Measured]) -> Table:
    """The report for people."""
    aim = f"aim: {work.blocks_mb:,.0f} MB"
    title = f"{work.n} rows of {work.d:,} float32 ({work.d * FLOAT_BYTES / 1e6:,.0f} MB each), f = {work.f}, one thread"
    rows = Table("rule", "ms", "x mean", "aim", "", "peak MB over rows", aim, title=title)
    for entry in measured:
        if entry.skipped:
            rows.add_row(entry.rule, "", "", "", "", "", f"skipped: {entry.skipped}")
            continue
        held = "" if entry.memory_mb is None else f"{entry.memory_mb:,.1f}"
        rows.add_row(
            entry.rule,
            f"{entry.median_s * 1e3:,.1f}",
            f"{entry.times:.2f}",
            f"<= {entry.aim:g}" if entry.aim else "",
            _verdict(entry.times, entry.aim),
            held,
            _verdict(entry.memory_mb, work.blocks_mb),
        )
    return rows


def _verdict(value: float | None, aim: float | None) -> str:
    if value is None or aim is None:
        return ""
    return "[green]met[/green]" if value <= aim else "[red]missed[/red]"


def too_large(n: int, d: int, memory_mb: float, disk_mb: float) -> str:
    """Why the rows do not fit into this memory (they must stay in the page cache) and disk; empty if they do."""
    rows_mb = (n + 1) * d * FLOAT_BYTES / 1e6
    if 1.25 * rows_mb > memory_mb:
        return f"{n} rows of {d:,} need {1.25 * rows_mb:,.0f} MB of memory, {memory_mb:,.0f} MB are available"
    if 1.25 * rows_mb > disk_mb:
        return f"{n} rows of {d:,} need {1.25 * rows_mb:,.0f} MB in {tempfile.gettempdir()} (set TMPDIR)"
    return ""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rules", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=20, help="rows")
    parser.add_argument("--d", type=int, action="append", help="columns; may be repeated; default 1e6 and 1e7")
    parser.add_argument("--f", type=int, default=4)
    parser.add_argument("--rule", action="append", choices=names(), metavar="NAME", help="may be repeated; default all")
    parser.add_argument("--repeat", type=int, default=7, help="timed runs of each rule")
    parser.add_argument("--no-memory", action="store_true", help="do not measure memory")
    parser.add_argument("--json", action="store_true", help="one object with a list `matrices`")
    given = parser.parse_args(arguments)
    given.d, given.rule = given.d or [1_000_000, 10_000_000], given.rule or names()
    if given.n < 1 or given.f < 0 or given.repeat < 1 or min(given.d) < 1:
        parser.error("needs at least 1 row, 1 column, 1 run, and an f that is not negative")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; exit code 1 if something could not be measured."""
    given = parse_arguments(arguments)
    matrices = []
    for d in given.d:
        reason = too_large(given.n, d, available_memory_mb(), shutil.disk_usage(tempfile.gettempdir()).free / 1e6)
        if reason:
            print(f"error: {reason}", file=sys.stderr)
            return 1
        with tempfile.TemporaryDirectory(prefix="covey-rules-") as folder:
            work = Work(given.n, d, given.f, Path(folder))
            try:
                measured = measure(work, given.rule, given.repeat, memory=not given.no_memory)
            except (CoveyError, RuntimeError) as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
        if not given.json:
            console().print(table(work, measured))
        matrices.append({"d": d, "memory_aim_mb": work.blocks_mb, "rules": [asdict(entry) for entry in measured]})
    if given.json:
        print(json.dumps({"n": given.n, "f": given.f, "matrices": matrices}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
