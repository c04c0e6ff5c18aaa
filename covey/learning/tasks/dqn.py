"""Deep Q-learning: the agent with all that it remembers, and some steps of it in an environment.

Mnih et al., "Human-level control through deep reinforcement learning" (Nature 518, 2015), algorithm 1, with the Huber
loss as its clipped error.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from covey.learning.optimizers import LocalOptimizer
from covey.learning.tasks.grid import Environment


class Replay(nn.Module):
    """The newest transitions, in a ring of buffers: they are part of the agent, and are kept with it.

    Args:
        size: How many.
        features: How long an observation is.
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    following: Tensor
    ended: Tensor
    written: Tensor

    def __init__(self, size: int, features: int) -> None:
        super().__init__()
        self.register_buffer("states", torch.zeros(size, features))
        self.register_buffer("actions", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("rewards", torch.zeros(size))
        self.register_buffer("following", torch.zeros(size, features))
        self.register_buffer("ended", torch.zeros(size, dtype=torch.bool))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))

    def add(self, state: Tensor, action: int, reward: float, following: Tensor, *, ended: bool) -> None:
        """Note a transition, in place of the oldest where there is no room."""
        at = int(self.written) % len(self.states)
        self.states[at], self.following[at] = state, following
        self.actions[at], self.rewards[at], self.ended[at] = action, reward, ended
        self.written += 1

    def drawn(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """So many transitions, with replacement: states, actions, rewards, following states, which of them ended."""
        rows = torch.randint(min(int(self.written), len(self.states)), (count,), generator=generator)
        rows = rows.to(self.states.device)
        return self.states[rows], self.actions[rows], self.rewards[rows], self.following[rows], self.ended[rows]


class Agent(nn.Module):
    """`body` and `head` give the value of each action; `target` is both as they were; `replay` is what was seen.

    Args:
        features: How long an observation is.
        hidden: Units of each of the body's two layers.
        actions: How many there are.
        replay: How many transitions are remembered.
    """

    def __init__(self, features: int, hidden: int, actions: int, replay: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, actions)
        self.target = copy.deepcopy(nn.Sequential(self.body, self.head)).requires_grad_(requires_grad=False)
        self.replay = Replay(replay, features)

    def forward(self, states: Tensor) -> Tensor:
        """The value of each action: float32 `[n, actions]` of states `[n, features]`."""
        values: Tensor = self.head(self.body(states))
        return values

    def follow(self) -> None:
        """Make the target network what the other one is now."""
        self.target[0].load_state_dict(self.body.state_dict())
        self.target[1].load_state_dict(self.head.state_dict())


@dataclass(frozen=True)
class Schedule:
    """How an agent explores and learns.

    Attributes:
        first: The share of random actions at first.
        last: The same in the end.
        over: After so many steps of the agent, linearly.
        discount: Of the next step's value.
        follow_every: Steps between two changes of the target network.
    """

    first: float
    last: float
    over: int
    discount: float
    follow_every: int

    def epsilon(self, step: int) -> float:
        """The share of random actions in an agent's step."""
        return self.first + (self.last - self.first) * min(1.0, step / self.over)


def explore(
    agent: Agent,
    environment: Environment,
    optimizer: LocalOptimizer,
    schedule: Schedule,
    *,
    steps: int,
    batch: int,
    generator: torch.Generator,
    each_step: Callable[[], object],
) -> tuple[float, int]:
    """So many moves in an environment, each followed by one step of learning.

    An episode that is under way at the end is given up: the agent remembers transitions, and no place.

    Args:
        agent: Changed in place.
        environment: Begins anew.
        optimizer: Of body and head.
        schedule: How to explore.
        steps: How many.
        batch: Transitions a step of learning.
        generator: All randomness comes from it; on the CPU.
        each_step: Called after each.

    Returns:
        The sum of the losses, and how many there were.
    """
    device = agent.replay.states.device
    state, _ = environment.reset(seed=int(torch.randint(2**31, (), generator=generator)))
    total = 0.0
    for _ in range(steps):
        seen = torch.as_tensor(state, dtype=torch.float32)
        if float(torch.rand((), generator=generator)) < schedule.epsilon(int(agent.replay.written)):
            action = int(torch.randint(agent.head.out_features, (), generator=generator))
        else:
            action = greedy(agent, seen.to(device))
        state, reward, ended, is_cut, _ = environment.step(action)
        agent.replay.add(seen, action, reward, torch.as_tensor(state, dtype=torch.float32), ended=ended)
        if ended or is_cut:
            state, _ = environment.reset()
        total += learn(agent, optimizer, agent.replay.drawn(batch, generator), schedule.discount)
        if int(agent.replay.written) % schedule.follow_every == 0:
            agent.follow()
        each_step()
    return total, steps


def greedy(agent: Agent, state: Tensor) -> int:
    """The action of the highest value."""
    with torch.no_grad():
        return int(agent(state.unsqueeze(0)).argmax())


def learn(
    agent: Agent, optimizer: LocalOptimizer, transitions: tuple[Tensor, Tensor, Tensor, Tensor, Tensor], discount: float
) -> float:
    """One step toward reward + discount max target(next), of transitions as `Replay.drawn` gives them; its loss."""
    states, actions, rewards, following, ended = transitions
    with torch.no_grad():
        best = agent.target(following).amax(1).masked_fill(ended, 0.0)
    values = agent(states).gather(1, actions.unsqueeze(1)).squeeze(1)
    loss = functional.smooth_l1_loss(values, rewards + discount * best)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def episode(agent: Agent, environment: Environment, seed: int, device: torch.device) -> tuple[float, bool]:
    """One greedy episode from a seed: the sum of its rewards, and whether the last one was positive."""
    state, _ = environment.reset(seed=seed)
    total, reward, is_over = 0.0, 0.0, False
    while not is_over:
        action = greedy(agent, torch.as_tensor(state, dtype=torch.float32).to(device))
        state, reward, ended, is_cut, _ = environment.step(action)
        total, is_over = total + reward, ended or is_cut
    return total, reward > 0
