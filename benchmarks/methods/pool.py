"""Doing the cases of a part, several at a time, and remembering what came out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, fields
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from benchmarks.methods.cases import Case, Outcome, Outcomes


def part_module(name: str) -> ModuleType:
    """The module of a part: it has `cases`, `run` and `report`."""
    return import_module(f"benchmarks.methods.{name.replace('-', '_')}")


def run_case(part: str, case: Case, quick: bool) -> Outcome:
    """One case, in a process of its own pool."""
    torch.set_num_threads(1)
    outcome: Outcome = part_module(part).run(case, quick)
    return outcome


def measured(part: str, cases: Sequence[Case], quick: bool, processes: int) -> Iterator[tuple[Case, Outcome]]:
    """All cases, in the order in which they are done."""
    with ProcessPoolExecutor(processes, mp_context=get_context("forkserver")) as pool:
        running = {pool.submit(run_case, part, case, quick): case for case in cases}
        for done in as_completed(running):
            yield running[done], done.result()


class Record:
    """Outcomes by part, in a file if there is one: what is there already need not be measured again."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._parts: dict[str, list[dict[str, Any]]] = json.loads(file.read_text()) if file and file.exists() else {}

    def of(self, part: str) -> dict[Case, Outcome]:
        """What is known of a part."""
        names = [field.name for field in fields(Case)]
        return {
            Case(**{name: entry[name] for name in names}): {k: v for k, v in entry.items() if k not in names}
            for entry in self._parts.get(part, [])
        }

    def add(self, part: str, case: Case, outcome: Outcome) -> None:
        """Note an outcome, and write the file anew."""
        self._parts.setdefault(part, []).append({**asdict(case), **outcome})
        if self._file is not None:
            text = json.dumps(self._parts)
            self._file.write_text(text.replace("{", "\n{"))


def run_part(part: str, quick: bool, processes: int, record: Record, only: str | None = None) -> tuple[Outcomes, float]:
    """The outcomes of a part in the order of its cases, and how many seconds those took that were not known.

    `only`: of one method, or one setting.
    """
    cases, began = part_module(part).cases(quick), time.monotonic()
    cases = [case for case in cases if only is None or only in (case.method, case.setting)]
    outcomes = record.of(part)
    missing = [case for case in cases if case not in outcomes]
    for case, outcome in measured(part, missing, quick, processes):
        outcomes[case] = outcome
        record.add(part, case, outcome)
        if sys.stderr.isatty():
            print(f"\r{part}: {len(outcomes)}/{len(cases)}", end="", file=sys.stderr, flush=True)
    return {case: outcomes[case] for case in cases}, time.monotonic() - began
