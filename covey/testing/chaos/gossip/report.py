"""What a trial came to, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from covey.gossip.mass import weight
from covey.testing.chaos.gossip.trial import MEAN_PAUSE_S, PACE_S, GossipOutcome, GossipPlan
from covey.testing.chaos.kinds import AMONG_PEERS
from covey.testing.chaos.report import fault_table

TEXTS = {
    "gossip": "asynchronous gossip (agp), nobody waits for anybody",
    "gossip-pairs": "asynchronous gossip in pairs (ad-psgd)",
    "gossip-lock-step": "gossip in lock step (sgp)",
}


@dataclass(frozen=True)
class GossipReport:
    """What a trial came to."""

    plan: GossipPlan
    outcome: GossipOutcome

    @property
    def problems(self) -> Sequence[str]:
        """What does not hold."""
        return self.outcome.problems

    @property
    def command(self) -> str:
        """The command that strikes in the same way again."""
        plan = self.plan
        words = f"python -m covey.testing.chaos --works {plan.work} --seed {plan.seed} --minutes {plan.minutes:g}"
        words += f" --nodes {plan.nodes}"
        words += "" if plan.mean_pause_s == MEAN_PAUSE_S else f" --pause {plan.mean_pause_s:g}"
        words += "" if plan.pace_s == PACE_S else f" --pace {plan.pace_s:g}"
        words += f" --loss {plan.loss:g}" if plan.loss else ""
        words += "" if plan.stretch == 1 else f" --stretch {plan.stretch:g}"
        words += "" if tuple(plan.kinds) == AMONG_PEERS else " ".join([" --faults", *plan.kinds])
        return words + ("" if plan.fork else " --execute")

    def as_json(self, kept: str | None) -> dict[str, Any]:
        """All of it; `kept` is the folder that is left."""
        plan, outcome = self.plan, self.outcome
        names = ("seconds", "steps", "undisturbed_steps", "goodput", "down_s", "restarts", "distance")
        return {
            "seed": plan.seed,
            "ok": not outcome.problems,
            "problems": outcome.problems,
            "command": self.command,
            "nodes": plan.nodes,
            "faults": dict(outcome.times),
            "faults_a_node_and_hour": outcome.a_node_and_hour(plan.nodes),
            "struck": [{"at_s": round(at, 2), **asdict(strike)} for at, strike in outcome.struck],
            **{name: getattr(outcome, name) for name in names},
            "spread": outcome.spreads[0],
            "undisturbed_spread": outcome.spreads[1],
            "accuracy": outcome.accuracies[0],
            "undisturbed_accuracy": outcome.accuracies[1],
            "mass": outcome.mass,
            "kept": kept,
        }

    def print(self, console: Console) -> None:
        """The tables."""
        plan, outcome, mass = self.plan, self.outcome, self.outcome.mass
        console.print(fault_table(outcome.times))
        table = Table("", "disturbed", "undisturbed", title=f"{plan.nodes} nodes, {outcome.seconds:.0f} s under faults")
        table.add_row("committed steps", str(outcome.steps), str(outcome.undisturbed_steps))
        table.add_row("goodput", f"{outcome.goodput:.1%}", "")
        table.add_row("faults a node and hour", f"{outcome.a_node_and_hour(plan.nodes):.1f}", "")
        share = outcome.down_s / (plan.nodes * outcome.seconds) if outcome.seconds else 0.0
        table.add_row("nodes stopped by faults, restarts not counted", f"{share:.1%} of their time", "")
        table.add_row("nodes that ended with an error, and were started again", str(outcome.restarts), "")
        if mass:
            told = f"exact: {'yes' if mass['exact'] else 'NO'}; {weight(mass['live']):g} of {weight(mass['minted']):g}"
            table.add_row("mass at the end", told, "")
        table.add_row("accuracy of the consensus model", *(f"{each:.3f}" for each in outcome.accuracies))
        table.add_row("farthest node from it", *(f"{each:.3g}" for each in outcome.spreads))
        table.add_row("distance of both consensus models", f"{outcome.distance:.3g}", "")
        console.print(table)
