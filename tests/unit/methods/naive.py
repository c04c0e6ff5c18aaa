"""Local training as anyone would write it, to compare methods with; nothing of Covey's but the order of the batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from covey.learning.partition import partition
from covey.seeds import derive_seed
from covey.spec import RunSpec
from covey.testing.method_rounds import EXAMPLES, NormedExample, PlainExample, examples

State = dict[str, Tensor]
Correct = Callable[[nn.Module], None]


def first_model(spec: RunSpec) -> nn.Module:
    """The run's task's model with its first values."""
    task = PlainExample() if spec.task.name.endswith("PlainExample") else NormedExample()
    torch.manual_seed(derive_seed(spec.seed, "model"))
    return task.model()


def part(spec: RunSpec, index: int, nodes: int) -> Tensor:
    """A node's examples."""
    return partition(spec.data, index, nodes, spec.seed, examples=EXAMPLES)


def batches(spec: RunSpec, index: int, nodes: int, number: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A node's batches of one round, one epoch after the other."""
    own, (x, y) = part(spec, index, nodes), examples(EXAMPLES, 1).tensors
    generator = torch.Generator().manual_seed(derive_seed(spec.seed, "batches", number, index))
    for _ in range(spec.training.local_epochs or 0):
        for batch in own[torch.randperm(len(own), generator=generator)].split(spec.training.batch_size):
            yield x[batch], y[batch]


def trained(
    spec: RunSpec,
    start: State,
    index: int,
    nodes: int,
    number: int,
    *,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    correct: Correct | None = None,
) -> tuple[State, int]:
    """One node's local training from a state dict: the state dict that comes out, and the number of steps.

    Args:
        spec: The run.
        start: Where to begin.
        index: The node's.
        nodes: How many there are.
        number: The round.
        penalty: Added to the loss.
        correct: Changes the gradients before each step.
    """
    model, steps = first_model(spec), 0
    model.load_state_dict(start)
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.training.learning_rate)
    model.train()
    for x, y in batches(spec, index, nodes, number):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        (loss if penalty is None else loss + penalty(model)).backward()
        if correct is not None:
            correct(model)
        optimizer.step()
        steps += 1
    return {name: value.clone() for name, value in model.state_dict().items()}, steps


def mean(states: list[State], shares: list[float]) -> State:
    """The weighted mean of states; integers rounded."""
    return {
        name: _rounded(sum(share * state[name].double() for state, share in zip(states, shares, strict=True)), value)
        for name, value in states[0].items()
    }


def _rounded(value: Tensor | float, like: Tensor) -> Tensor:
    assert isinstance(value, Tensor)
    return value.to(like.dtype) if like.is_floating_point() else value.round().to(like.dtype)


def shares(spec: RunSpec, chosen: list[int], nodes: int) -> list[float]:
    """Shares by examples (none of these nodes has more than half of them)."""
    counts = [len(part(spec, index, nodes)) for index in chosen]
    return [count / sum(counts) for count in counts]
