"""What a module keeps beside its state_dict is put back, and what follows the parameters is left alone."""

import torch
from torch import Tensor, nn

from covey.learning.models.transient import TransientState


class Keeping(nn.Module):
    wide: Tensor
    cache: Tensor
    seen: Tensor | None
    weights: Tensor
    layer: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("cache", torch.zeros(1), persistent=False)
        self.register_buffer("wide", torch.zeros(1).expand(3), persistent=False)
        self.calls, self.seen, self.table = 0, None, torch.ones(2)
        self.weights = self.layer.get_parameter("weight").data

    def forward(self, x: Tensor) -> Tensor:
        self.cache += 1
        self.calls += 1
        self.table.mul_(2)
        self.seen, self.found = x, 3
        self.wide = torch.ones(5)
        result: Tensor = self.layer(x)
        return result


def test_state_beside_the_state_dict_is_put_back() -> None:
    model = Keeping()
    state, table = TransientState(model), model.table
    for _ in range(2):
        model(torch.ones(2))
    model.layer.get_parameter("weight").data.fill_(7)
    state.restore()
    assert (model.cache.tolist(), model.calls, model.seen) == ([0.0], 0, None)
    assert model.table is table
    assert table.tolist() == [1.0, 1.0]
    assert model.wide.tolist() == [0.0, 0.0, 0.0]
    assert not hasattr(model, "found")
    assert model.weights.unique().tolist() == [7.0], "it shares memory with a parameter, and follows it"
    state.restore()
    assert model.wide.tolist() == [0.0, 0.0, 0.0]
