"""What a chase came to, for people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from covey.testing.chaos.chase import Outcome, Plan
from covey.testing.chaos.figures import MB, Figures
from covey.testing.chaos.kinds import FEDERATED, KINDS
from covey.testing.chaos.works import PARAMETERS, WORKS

MOST_ROWS = 14
HEADS = "at", "done", "mem", "fds", "thr", "db", "files", "of", "spool", "logs", "node"
CAPTION = (
    "done: rounds and asynchronous updates; mem, fds, thr: private memory, descriptors, threads; "
    "db, files, spool, logs: the coordinator's record, models and updates, unfinished files, and all event logs; "
    "node: the largest node's folder without event logs and receipts; *: at rest"
)


@dataclass(frozen=True)
class FederatedReport:
    """What a chase came to."""

    plan: Plan
    outcome: Outcome

    @property
    def problems(self) -> Sequence[str]:
        """What does not hold."""
        return self.outcome.problems

    @property
    def command(self) -> str:
        """The command that does the same again."""
        return command_of(self.plan)

    def as_json(self, kept: str | None) -> dict[str, Any]:
        """All of it; `kept` is the folder that is left."""
        return as_json(self.plan, self.outcome, kept)

    def print(self, console: Console) -> None:
        """The tables."""
        print_report(console, self.outcome)


def command_of(plan: Plan) -> str:
    """The command that does the same again."""
    words = f"python -m covey.testing.chaos --seed {plan.seed} --minutes {plan.minutes:g} --nodes {plan.nodes}"
    words += f" --rounds {plan.rounds} --pause {plan.mean_pause_s:g}"
    words += "" if plan.parameters == PARAMETERS else f" --parameters {plan.parameters}"
    words += "" if plan.stretch == 1 else f" --stretch {plan.stretch:g}"
    words += "" if plan.laps is None else f" --laps {plan.laps}"
    if tuple(plan.works) != tuple(WORKS):
        words += f" --works {' '.join(plan.works)}"
    if tuple(plan.kinds) != FEDERATED:
        words += f" --faults {' '.join(plan.kinds)}"
    return words + ("" if plan.keep_all else " --retain") + ("" if plan.fork else " --execute")


def as_json(plan: Plan, outcome: Outcome, kept: str | None) -> dict[str, Any]:
    """All of it."""
    return {
        "seed": plan.seed,
        "ok": not outcome.problems,
        "problems": outcome.problems,
        "notes": outcome.notes,
        "command": command_of(plan),
        "faults": dict(outcome.struck),
        "done": outcome.done,
        "laps": [
            {
                "lap": lap.number,
                "faults": [{"at_s": round(at, 2), **asdict(strike)} for at, strike in lap.struck],
                "runs": {
                    name: {
                        key: run[key] for key in ("run", "state", "rounds_committed", "updates_decided", "model_sha256")
                    }
                    for name, run in lap.runs.items()
                },
            }
            for lap in outcome.laps
        ],
        "figures": [asdict(sample) for sample in outcome.figures],
        "kept": kept,
    }


def print_report(console: Console, outcome: Outcome) -> None:
    """The tables."""
    console.print(fault_table(outcome.struck))
    console.print(_runs(outcome))
    console.print(_growth(outcome))
    for note in outcome.notes:
        console.print(f"note: {note}", markup=False)


def fault_table(struck: Mapping[str, int]) -> Table:
    """How often each kind of fault happened."""
    table = Table("fault", "times", "what it is", title="faults that happened")
    for kind, times in sorted(struck.items()):
        table.add_row(kind, str(times), KINDS[kind].text)
    return table


def _runs(outcome: Outcome) -> Table:
    table = Table("run", "faults", "state", "done", "final model", "undisturbed", title="runs")
    first = outcome.laps[0] if outcome.laps else None
    for lap in outcome.laps:
        for name, run in lap.runs.items():
            undisturbed = first.runs[name]["model_sha256"][:16] if first and name in first.runs else ""
            done = str(run["updates_decided"] or run["rounds_committed"])
            sha = run["model_sha256"][:16]
            table.add_row(run["name"], str(len(lap.struck)), run["state"], done, sha, undisturbed)
    return table


def _growth(outcome: Outcome) -> Table:
    table = Table(*HEADS, title="the most of any process; disk; all in MB or numbers", caption=CAPTION)
    for sample in _some(outcome.figures):
        mark = "*" if sample.settled else ""
        disk = sample.disk
        table.add_row(
            f"{sample.at_s:.0f}{mark}",
            str(sample.rounds),
            f"{sample.most('memory_bytes') / MB:.0f}",
            str(sample.most("descriptors")),
            str(sample.most("threads")),
            f"{disk.record / MB:.1f}",
            f"{disk.artifacts / MB:.1f}",
            str(disk.artifact_files),
            str(disk.spool_files),
            f"{disk.events / MB:.1f}",
            f"{disk.node / MB:.2f}",
        )
    return table


def _some(figures: list[Figures]) -> list[Figures]:
    """Those at rest, and as many between them as there is room for."""
    settled = [sample for sample in figures if sample.settled][-MOST_ROWS:]
    others = [sample for sample in figures if not sample.settled]
    room = MOST_ROWS - len(settled)
    chosen = others[:: max(1, len(others) // room)] if room > 0 else []
    return sorted([*settled, *chosen], key=lambda sample: sample.at_s)
