from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
import torch
from pydantic import JsonValue
from torch import Tensor

from covey.aggregation.server_optimizers import SGD, Adagrad, Adam, Momentum, Nesterov, ServerOptimizer, Yogi
from covey.errors import SpecError
from covey.vectors import spans

D = 50
STEPS = 12
ALL: list[type[ServerOptimizer]] = [SGD, Momentum, Nesterov, Adam, Yogi, Adagrad]
Formula = Callable[[list[float], dict[str, float]], float]


def base_and_directions() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    return torch.randn(D, generator=generator), torch.randn(STEPS, D, generator=generator)


def walk(optimizer: ServerOptimizer, width: int = D, garbage: float = math.nan) -> tuple[Tensor, dict[str, Tensor]]:
    """The model after all steps, made block by block; state starts as garbage, as in recycled files."""
    model, directions = base_and_directions()
    state = {slot: torch.full((D,), garbage) for slot in optimizer.slots}
    for step, direction in enumerate(directions, start=1):
        optimizer.begin(step)
        for columns in spans(D, width):
            block = {slot: vector[columns] for slot, vector in state.items()}
            model[columns] = optimizer.step_block(model[columns], direction[columns], block, step)
    return model, state


def by_torch(make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> Tensor:
    """The model after all steps of a torch optimizer on the pseudo-gradient, which is minus the direction."""
    model, directions = base_and_directions()
    model.requires_grad_(True)
    optimizer = make([model])
    for direction in directions:
        model.grad = -direction
        optimizer.step()
    return model.detach()


def check_against_torch(optimizer: ServerOptimizer, make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> None:
    torch.testing.assert_close(walk(optimizer)[0], by_torch(make), rtol=1e-5, atol=1e-6)


def test_sgd_is_torchs() -> None:
    check_against_torch(SGD({"learning_rate": 0.3}), lambda p: torch.optim.SGD(p, lr=0.3))


def test_momentum_is_torchs() -> None:
    options: dict[str, JsonValue] = {"learning_rate": 0.5, "momentum": 0.8}
    check_against_torch(Momentum(options), lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.8))


def test_nesterov_is_torchs_with_dilocos_numbers_by_default() -> None:
    check_against_torch(Nesterov(), lambda p: torch.optim.SGD(p, lr=0.7, momentum=0.9, nesterov=True))


def test_nesterov_is_the_look_ahead_form_of_block_momentum() -> None:
    # BMUF-NBM with block weights W apart from the look-ahead model W + mu v (Chen & Huo), in float64.
    model, directions = (t.double() for t in base_and_directions())
    weights, velocity, lr, mu = model.clone(), torch.zeros(D).double(), 0.7, 0.9
    for direction in directions:
        velocity = mu * velocity + lr * direction
        weights = weights + velocity
        model = weights + mu * velocity
    torch.testing.assert_close(walk(Nesterov())[0], model.float(), rtol=1e-5, atol=1e-6)


def test_momentum_is_slowmo_with_its_momentum_scaled_by_the_inner_rate() -> None:
    # SlowMo: u <- beta u + (x - averaged) / gamma;  x <- x - alpha gamma u.
    model, directions = (t.double() for t in base_and_directions())
    u, alpha, beta, gamma = torch.zeros(D).double(), 0.9, 0.6, 0.05
    for direction in directions:
        averaged = model + direction
        u = beta * u + (model - averaged) / gamma
        model = model - alpha * gamma * u
    ours = walk(Momentum({"learning_rate": alpha, "momentum": beta}))[0]
    torch.testing.assert_close(ours, model.float(), rtol=1e-5, atol=1e-6)


def test_adam_with_bias_correction_is_torchs() -> None:
    options: dict[str, JsonValue] = {
        "learning_rate": 0.05,
        "beta1": 0.8,
        "beta2": 0.95,
        "tau": 1e-4,
        "bias_correction": True,
    }
    check_against_torch(Adam(options), lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.8, 0.95), eps=1e-4))


def adam_second(v: float, d: float, beta2: float) -> float:
    return beta2 * v + (1 - beta2) * d * d


def yogi_second(v: float, d: float, beta2: float) -> float:
    return v - (1 - beta2) * d * d * math.copysign(1, v - d * d)


@pytest.mark.parametrize(("kind", "second"), [(Adam, adam_second), (Yogi, yogi_second)])
def test_adaptive_ones_are_the_papers_formula(
    kind: type[ServerOptimizer], second: Callable[[float, float, float], float]
) -> None:
    lr, beta1, beta2, tau = 0.02, 0.9, 0.99, 1e-3
    model, directions = base_and_directions()
    expected = model.tolist()
    for j in range(D):
        m, v = 0.0, tau**2
        for d in directions[:, j].tolist():
            m = beta1 * m + (1 - beta1) * d
            v = second(v, d, beta2)
            expected[j] += lr * m / (math.sqrt(v) + tau)
    ours = walk(kind({"learning_rate": lr}))[0]
    torch.testing.assert_close(ours, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_yogi_lets_the_second_moment_fall_by_the_square_of_the_direction() -> None:
    state = {"first_moment": torch.zeros(1), "second_moment": torch.tensor([4.0])}
    Yogi().step_block(torch.zeros(1), torch.tensor([0.5]), state, step=2)
    assert state["second_moment"].item() == pytest.approx(4.0 - 0.01 * 0.25)


def test_adagrad_is_the_papers_formula() -> None:
    lr, tau = 0.1, 1e-3
    model, directions = base_and_directions()
    accumulated = torch.full((D,), tau**2).double()
    expected = model.double()
    for direction in directions.double():
        accumulated += direction**2
        expected += lr * direction / (accumulated.sqrt() + tau)
    torch.testing.assert_close(walk(Adagrad())[0], expected.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_blocks_of_any_size_give_the_same_model_and_state(kind: type[ServerOptimizer]) -> None:
    whole, state = walk(kind())
    for width in (1, 7, 49):
        model, blocked = walk(kind(), width, garbage=1e30)
        torch.testing.assert_close(model, whole, rtol=1e-6, atol=1e-6)
        for slot in kind.slots:
            torch.testing.assert_close(blocked[slot], state[slot], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_arguments_are_kept_and_out_is_used(kind: type[ServerOptimizer]) -> None:
    model, directions = base_and_directions()
    before = (model.clone(), directions[0].clone())
    first = {slot: torch.empty(D) for slot in kind.slots}
    second = {slot: torch.empty(D) for slot in kind.slots}
    out = torch.empty(D)
    returned = kind().step_block(model, directions[0], first, 1, out)
    fresh = kind().step_block(model, directions[0], second, 1)
    assert returned.data_ptr() == out.data_ptr()
    assert torch.equal(out, fresh)
    assert torch.equal(model, before[0])
    assert torch.equal(directions[0], before[1])


@pytest.mark.parametrize("kind", ALL)
def test_nothing_to_do_moves_nothing(kind: type[ServerOptimizer]) -> None:
    model, _ = base_and_directions()
    state = {slot: torch.empty(D) for slot in kind.slots}
    assert torch.equal(kind().step_block(model, torch.zeros(D), state, 1), model)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (SGD, {"momentum": 0.9}, "server_optimizer.options.momentum: unknown key; known keys: learning_rate"),
        (SGD, {"learning_rate": 0}, r"options.learning_rate: .*greater than 0 \(given: 0\)"),
        (SGD, {"learning_rate": math.inf}, "options.learning_rate"),
        (Momentum, {"momentum": 1.0}, "options.momentum: .*less than 1"),
        (Adam, {"tau": 0.0}, "options.tau"),
        (Yogi, {"beta3": 0.0}, "known keys: beta1, beta2, bias_correction, learning_rate, tau"),
    ],
)
def test_wrong_options_are_refused(kind: type[ServerOptimizer], options: Mapping[str, JsonValue], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        kind(options)


def test_steps_count_from_one() -> None:
    with pytest.raises(ValueError, match="count from 1"):
        SGD().begin(0)
