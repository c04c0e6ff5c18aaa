"""Reinforcement learning on nodes: each has an agent in a grid world of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from covey.errors import TaskError
from covey.learning.optimizers import local_optimizer
from covey.learning.statistics import Stat
from covey.learning.task import FitResult, FitSettings, NodeData, Task
from covey.learning.tasks.dqn import Agent, Schedule, episode, explore
from covey.learning.tasks.grid import FEATURES, MOVES, Environment, GridWorld
from covey.learning.training.loop import steps_in_round
from covey.seeds import derive_seed

EPISODES = 12
"""Greedy ones, of an evaluation."""


class GridWorldTask(Task):
    """Deep Q-learning in a small grid world (`covey.learning.tasks.grid.MAPS`).

    A round is `[training] local_steps` moves, with one step of learning after each. What an agent has seen (`replay`)
    and its target network never leave the node, whatever a run shares; whether its `head` does is the run's choice
    (`[exchange] local`). Parts of an agent: `body`, `head`, `target`, `replay`.

    Metrics: `return`, the mean sum of rewards of greedy episodes from fixed seeds, and `solved`, how many of them end
    at the goal. The node's evaluation data are these seeds.

    Another environment: a subclass with its own `environment` and `sizes`.
    """

    stays: ClassVar[tuple[str, ...]] = ("target.*", "replay.*")

    class Options(Task.Options):
        """[task.options] of `grid-world`."""

        map: Literal["east-a", "east-b", "west-a", "west-b"] = "east-a"
        """Where the agent lives; of each node its own ([task.nodes.NODE])."""
        hidden: int = Field(default=32, ge=1, le=10_000)
        replay: int = Field(default=2000, ge=1, le=1_000_000)
        """Transitions that an agent remembers."""
        discount: float = Field(default=0.95, ge=0, lt=1)
        epsilon_first: float = Field(default=1.0, ge=0, le=1)
        """The share of random moves at first."""
        epsilon_last: float = Field(default=0.05, ge=0, le=1)
        epsilon_steps: int = Field(default=1000, ge=1)
        """After so many of its own steps an agent has come from the first share to the last."""
        follow_every: int = Field(default=50, ge=1)
        """Steps between two changes of the target network."""

    options: Options

    def sizes(self) -> tuple[int, int]:
        """How long an observation is, and how many actions there are."""
        return FEATURES, len(MOVES)

    def environment(self) -> Environment:
        """A new one."""
        return GridWorld(self.options.map)

    def model(self) -> nn.Module:
        """The agent, with nothing in its memory."""
        features, actions = self.sizes()
        return Agent(features, self.options.hidden, actions, self.options.replay)

    def train_data(self, data: NodeData) -> TensorDataset:
        """Nothing but a place for the node: what it learns from it makes itself."""
        return TensorDataset(torch.zeros(1, dtype=torch.int64))

    def eval_data(self, data: NodeData) -> TensorDataset:
        """The seeds of the greedy episodes: int64 `[12]`."""
        return TensorDataset(torch.arange(EPISODES))

    def evaluate(self, model: nn.Module, batch: Any) -> Mapping[str, Stat]:
        """Greedy episodes from the batch's seeds."""
        seeds: Tensor = batch[0]
        environment = self.environment()
        outcomes = [episode(_agent(model), environment, seed, seeds.device) for seed in seeds.tolist()]
        returns, solved = sum(total for total, _ in outcomes), sum(won for _, won in outcomes)
        return {"return": Stat(returns, len(outcomes)), "solved": Stat(solved, len(outcomes))}

    def fit(self, model: nn.Module, data: Dataset[Any], settings: FitSettings) -> FitResult:
        """Some moves in the node's environment; declares them as its examples."""
        agent, own, training = _agent(model), self.options, settings.training
        steps = steps_in_round(training, len(settings.indices))
        schedule = Schedule(own.epsilon_first, own.epsilon_last, own.epsilon_steps, own.discount, own.follow_every)
        seed = derive_seed(settings.seed, "agent", settings.round, settings.roster_index)
        if not int(agent.replay.written):
            agent.follow()  # the body came from the run
        loss, count = explore(
            agent,
            self.environment(),
            local_optimizer(
                [*agent.body.parameters(), *agent.head.parameters()], training, settings.round, settings.rounds
            ),
            schedule,
            steps=steps,
            batch=training.batch_size,
            generator=torch.Generator().manual_seed(seed),
            each_step=settings.each_step,
        )
        return FitResult(steps, steps, {"loss": Stat(loss, count)})


def _agent(model: nn.Module) -> Agent:
    if not isinstance(model, Agent):
        raise TaskError(f"the model is {type(model).__name__}, and this task trains an Agent")
    return model
