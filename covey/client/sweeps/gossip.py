"""A sweep's runs of mode gossip, simulated: each from its first step to its last, measured by the model in the end."""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from typing_extensions import override

from covey.client.experiments.gossip import MEAN, GossipOutcome, gossip_plan
from covey.client.sweeps.crews import CHECK, CrewTrials
from covey.client.sweeps.events import Failed, Measured
from covey.client.sweeps.machine import Work
from covey.errors import PluginError, RunFailed, SpecError, TaskError
from covey.simulation.gossip.simulation import simulate_gossip
from covey.simulation.plan import MAX_NODES


class GossipTrials(CrewTrials):
    """Gossip runs. There is no record of one, so that a run that was killed begins anew.

    A member of a population goes on with another one's consensus model.
    """

    @override
    async def give_up(self, trial: int, rung: int) -> None:
        """It has ended."""

    @override
    async def measure(self, work: Work) -> Measured | Failed:
        name = self.sweep.run_name(work.trial, work.seed, work.rung)
        before = self.sweep.rungs[work.rung - 1] if self.sweep.is_population and work.rung else 0
        try:
            spec = self.sweep.run_spec(work.params, work.seed, name, work.rung)
            if before:
                source = work.trial if work.source is None else work.source
                spec["model"] = {"initial": str(self._folder_at(source, work.seed, work.rung - 1) / MEAN)}
            steps, outcome = await self._run(spec, self._folder_at(work.trial, work.seed, work.rung))
            value = self._value(outcome)
        except (SpecError, PluginError, TaskError, RunFailed) as error:  # these values do not go together
            return Failed(work.trial, work.rung, work.seed, str(error))
        at = before + steps
        return Measured(work.trial, work.rung, work.seed, at, value, ((at, value),), name)

    @override
    async def check(self, folder: Path) -> None:
        sweep = self.sweep
        spec = sweep.shortened(sweep.run_spec(sweep.first_params, sweep.seeds[0], CHECK), 1)
        try:
            _, outcome = await self._run(spec, folder)
            self._value(outcome)
        except (RunFailed, TaskError) as error:
            raise SpecError(f"a run of one step, with the first of all values, cannot be measured: {error}") from error
        if sweep.is_population and not outcome.model_sha256:
            raise SpecError(
                "sweep.prune: with this protocol each node keeps a model of its own, and a population's members go on "
                "with another one's consensus model; leave [sweep.prune] out"
            )

    async def _run(self, spec: dict[str, Any], folder: Path) -> tuple[int, GossipOutcome]:
        """A run's steps, and what came of it."""
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        machines = self.machines
        plan = gossip_plan(
            spec,
            machines.nodes,
            data_dir=folder,
            processes=machines.processes,
            paths=machines.paths,
            device=machines.device,
        )
        async with self.crew() as crew:
            outcome = await simulate_gossip(replace(plan, evaluated=MAX_NODES), pool=crew.pool)
        return plan.spec.rounds_in_all, outcome

    def _value(self, outcome: GossipOutcome) -> float:
        """The metric of the consensus model, or else the mean of the nodes' own models.

        Raises:
            SpecError: There are metrics, and not this one.
            RunFailed: It has none, or a node did not come to its end.
        """
        if gone := next((peer for peer in outcome.peers if peer.reason != "completed"), None):
            raise RunFailed(f"{gone.node} did not come to its end: {gone.reason}")
        known = {**_by_nodes(outcome), **outcome.metrics}
        name = self.sweep.metric
        value = next((known[each] for each in (name, f"nodes/{name}") if each in known), None)
        if value is None and known:
            raise SpecError(
                f"sweep.metric: no evaluation gives a metric {name!r}; there are: {', '.join(sorted(known))}"
            )
        if value is None:
            raise RunFailed(f"{name} has no value: the task has no central data to evaluate models on")
        if not math.isfinite(value):
            raise RunFailed(f"{name} is {value}")
        return value

    def _folder_at(self, trial: int, seed: int, rung: int) -> Path:
        return self.folder_of(trial, seed) / f"g{rung}" if self.sweep.is_population else self.folder_of(trial, seed)


def _by_nodes(outcome: GossipOutcome) -> Mapping[str, float]:
    """The mean over the nodes, of each metric that all have."""
    metrics = [peer.metrics for peer in outcome.peers]
    shared = set.intersection(*map(set, metrics))
    return {f"nodes/{name}": fmean(each[name] for each in metrics) for name in sorted(shared)}
