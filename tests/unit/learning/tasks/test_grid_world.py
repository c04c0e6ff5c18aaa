from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from covey.errors import TaskError
from covey.learning.optimizers import local_optimizer
from covey.learning.task import FitSettings, NodeData
from covey.learning.tasks.dqn import Agent, Replay, Schedule, learn
from covey.learning.tasks.grid import HORIZON, MAPS, MOVES, GridWorld
from covey.learning.tasks.grid_world import GridWorldTask
from covey.spec import TrainingSection
from covey.testing.method_rounds import MethodRounds, spec_of
from covey.worker.program.local_tensors import LocalTensors

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", MAPS)
def test_the_goal_can_be_reached_from_every_free_cell(name: str) -> None:
    rows = MAPS[name]
    free = {(r, c) for r, row in enumerate(rows) for c, cell in enumerate(row) if cell == "."}
    known = {(r, c) for r, row in enumerate(rows) for c, cell in enumerate(row) if cell == "G"}
    assert len(known) == 1
    assert any("O" in row for row in rows)
    for _ in range(len(free)):
        known |= {(r + dr, c + dc) for r, c in known for dr, dc in MOVES} & free
    assert free <= known


def test_a_map_is_walked_as_it_is_drawn() -> None:
    world = GridWorld("east-a")
    first, facts = world.reset(seed=3)
    again, _ = GridWorld("east-a").reset(seed=3)
    assert torch.equal(first, again)
    assert facts == {}
    assert first.dtype == torch.float32
    world._at = (2, 3)
    assert world.step(1)[0].tolist() == pytest.approx([-0.2, 0.2, 0, 1, 0, 0])  # the wall on its right bars the way
    world._at = (1, 5)
    assert world.step(2)[1:4] == (1.0, True, False)
    world._at = (3, 0)
    assert world.step(1)[1:4] == (-1.0, True, False)
    world.reset(seed=1)
    world._at = (0, 0)
    ends = [world.step(0)[2:4] for _ in range(HORIZON)]
    assert ends[-2:] == [(False, False), (False, True)]


def test_the_newest_transitions_are_remembered() -> None:
    replay = Replay(3, 1)
    for number in range(5):
        replay.add(torch.tensor([float(number)]), number, 1.0, torch.tensor([number + 1.0]), ended=number == 4)
    assert sorted(replay.actions.tolist()) == [2, 3, 4]
    assert int(replay.written) == 5
    states, actions, _, following, ended = replay.drawn(50, torch.Generator().manual_seed(0))
    assert torch.equal(states[:, 0] + 1, following[:, 0])
    assert torch.equal(ended, actions == 4)
    assert set(actions.tolist()) == {2, 3, 4}


def test_exploration_falls_in_a_line() -> None:
    schedule = Schedule(1.0, 0.2, 100, 0.9, 10)
    assert [round(schedule.epsilon(step), 6) for step in (0, 50, 100, 900)] == [1.0, 0.6, 0.2, 0.2]


def test_a_step_of_learning_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    agent = Agent(2, 4, 3, 10)
    states, following = torch.randn(2, 2), torch.randn(2, 2)
    actions, rewards, ended = torch.tensor([2, 0]), torch.tensor([0.5, -1.0]), torch.tensor([False, True])
    best = agent.target(following).max(1).values
    wanted = torch.stack([0.5 + 0.9 * best[0], rewards[1]])
    values = agent(states)[torch.arange(2), actions]
    expected = nn.functional.huber_loss(values, wanted)
    gradients = torch.autograd.grad(expected, list(agent.head.parameters()))
    before = [parameter.detach().clone() for parameter in agent.head.parameters()]
    section = TrainingSection(learning_rate=0.1)
    optimizer = local_optimizer([*agent.body.parameters(), *agent.head.parameters()], section, 1, 1)
    assert learn(agent, optimizer, (states, actions, rewards, following, ended), 0.9) == pytest.approx(expected.item())
    for old, new, gradient in zip(before, agent.head.parameters(), gradients, strict=True):
        torch.testing.assert_close(new, old - 0.1 * gradient)
    assert not torch.equal(agent.target(states), agent(states))
    agent.follow()
    assert torch.equal(agent.target(states), agent(states))


def settings(number: int, steps: int) -> FitSettings:
    training = TrainingSection(optimizer="adam", learning_rate=0.002, batch_size=32, local_steps=steps)
    return FitSettings(training, torch.zeros(1, dtype=torch.int64), number, 20, 0, 0, CPU)


def test_an_agent_learns_to_walk_to_the_goal() -> None:
    torch.manual_seed(0)
    task, solved = GridWorldTask(), []
    agent = task.model()
    for number in range(1, 9):
        task.fit(agent, task.train_data(NodeData()), settings(number, 150))
        metrics = task.evaluate(agent, task.eval_data(NodeData()).tensors)
        solved.append(metrics["solved"].total)
    assert solved[0] <= 8
    assert sum(solved[-3:]) >= 30, solved


def test_what_an_agent_has_seen_stays_with_it_whatever_is_shared(tmp_path: Path) -> None:
    sections: dict[str, Any] = {
        "task": {"name": "grid-world", "options": {"replay": 50}, "nodes": {"n1": {"map": "west-b"}}},
        "data": {"partition": "local"},
        "training": {"batch_size": 8, "local_steps": 20},
    }
    run = MethodRounds(spec_of("none", **sections), tmp_path, 2)
    assert {tensor.name.split(".")[0] for tensor in run.layout.tensors} == {"body", "head"}
    for _ in range(2):
        run.round()
    model = GridWorldTask({"replay": 50}).model()
    names = frozenset(name for name in model.state_dict() if name.split(".")[0] in ("target", "replay"))
    memories = []
    for node in run.names:
        LocalTensors(model, names).load_into(model, run.nodes[node].own["method/local"])
        assert isinstance(model, Agent)
        assert int(model.replay.written) == 40
        memories.append(model.replay.states.clone())
    assert not torch.equal(*memories)
    assert set(run.evaluate("n1")) == {"return", "solved"}


def test_another_model_is_refused() -> None:
    with pytest.raises(TaskError, match="the model is Linear, and this task trains an Agent"):
        GridWorldTask().evaluate(nn.Linear(1, 1), (torch.arange(2),))


def test_the_interface_is_gymnasium_s() -> None:
    """Its own checker passes the map, and the agent learns in one of its environments."""
    gymnasium: Any = pytest.importorskip("gymnasium")
    checker: Any = pytest.importorskip("gymnasium.utils.env_checker")
    world = GridWorld("west-a")

    def reset(self: Any, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        gymnasium.Env.reset(self, seed=seed)
        state, facts = world.reset(seed=seed, options=options)
        return state.numpy(), facts

    def step(self: Any, action: Any) -> Any:
        state, *rest = world.step(int(action))
        return (state.numpy(), *rest)

    spaces = {
        "observation_space": gymnasium.spaces.Box(-1.0, 1.0, (6,)),
        "action_space": gymnasium.spaces.Discrete(len(MOVES)),
    }
    checker.check_env(
        type("Checked", (gymnasium.Env,), {"reset": reset, "step": step, **spaces})(), skip_render_check=True
    )

    class Cart(GridWorldTask):
        def sizes(self) -> tuple[int, int]:
            return 4, 2

        def environment(self) -> Any:
            return gymnasium.make("CartPole-v1")

    task = Cart({"replay": 100})
    agent = task.model()
    assert task.fit(agent, task.train_data(NodeData()), settings(1, 60)).steps == 60
    assert task.evaluate(agent, (torch.arange(2),))["return"].ratio >= 8
