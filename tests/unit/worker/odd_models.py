"""Models as people have them, by what their `state_dict` holds: `CARRIED` make the round trip, `REFUSED` do not."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from covey.learning.task import LossOutput, NodeData, Task

Change = Callable[[nn.Module], object]


class Odd(nn.Module):
    """A linear model with something beside it."""

    def __init__(self, *changes: Change) -> None:
        super().__init__()
        self.out = nn.Linear(4, 3)
        for change in changes:
            change(self)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.out(x)
        return found


class Tied(nn.Module):
    """Embedding and head share their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Embedding(3, 4), nn.Linear(4, 3, bias=False)
        self.head.weight = self.first.weight
        self.register_buffer("last", torch.ones(3, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(x)
        return found


class Twice(nn.Module):
    """A module with buffers that is registered twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.BatchNorm1d(4)
        self.b, self.out = self.a, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.out(self.b(self.a(x)))
        return found


class Counting(nn.Module):
    """What it computes depends on how often it was called, and on a cache: none of it is in the state_dict."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(()), persistent=False)
        self.scale, self.cache = 1.0, torch.zeros(4)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.scale *= 0.9
        self.cache += x.mean(0).detach()
        found: Tensor = self.out(x * self.scale + self.cache) * (1 + 0.1 * self.calls)
        return found


class Observer(nn.Module):
    """Knows nothing at first (infinities), and learns the range of its inputs, as observers of quantisation do."""

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 3)
        self.register_buffer("low", torch.tensor(torch.inf))
        self.register_buffer("high", torch.tensor(-torch.inf))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.low, self.high = torch.minimum(self.low, x.min()), torch.maximum(self.high, x.max())
        found: Tensor = self.out(x)
        return found


class ExtraState(nn.Module):
    """State that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 3)

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": 3}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


def buffer(name: str, value: Tensor, *, persistent: bool = True) -> Change:
    return lambda model: model.register_buffer(name, value, persistent=persistent)


def parameter(name: str, value: Tensor, *, trained: bool = True) -> Change:
    return lambda model: model.register_parameter(name, nn.Parameter(value, requires_grad=trained))


def causal_mask() -> Tensor:
    return torch.triu(torch.full((3, 3), -torch.inf), 1)


def hidden(model: nn.Module) -> None:
    """A hook that keeps a buffer out of the state_dict."""
    model.register_buffer("secret", torch.ones(2))
    model.register_state_dict_post_hook(lambda module, state, prefix, metadata: state.__delitem__(prefix + "secret"))


def added(model: nn.Module) -> None:
    """A hook that puts something else into the state_dict."""
    model.register_state_dict_post_hook(
        lambda module, state, prefix, metadata: state.update({prefix + "more": torch.ones(2)})
    )


CARRIED: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(4, 3),
    "causal-mask": lambda: Odd(buffer("mask", causal_mask())),
    "nan-buffer": lambda: Odd(buffer("unknown", torch.tensor([1.0, torch.nan, torch.inf]))),
    "half-mask": lambda: Odd(buffer("mask", causal_mask().half()), buffer("more", causal_mask().bfloat16())),
    "double-mask": lambda: Odd(buffer("mask", causal_mask().double())),
    "observer": Observer,
    "empty": lambda: Odd(parameter("spare", torch.empty(0)), buffer("none", torch.empty(3, 0))),
    "scalar": lambda: Odd(parameter("scale", torch.tensor(1.0)), buffer("step", torch.tensor(7))),
    "integer": lambda: Odd(parameter("ids", torch.tensor([3, 4]), trained=False), buffer("b", torch.arange(3).short())),
    "boolean": lambda: Odd(buffer("mask", torch.tensor([True, False, True]))),
    "half": lambda: Odd(parameter("h", torch.ones(3).half()), buffer("i", torch.tensor(2**60 + 1))),
    "bf16": lambda: Odd(parameter("h", torch.ones(5, dtype=torch.bfloat16))),
    "transposed": lambda: Odd(parameter("t", torch.randn(3, 4).t()), buffer("b", torch.randn(6)[::2])),
    "tied": Tied,
    "twice": Twice,
    "not-persistent": lambda: Odd(buffer("cache", torch.ones(2), persistent=False)),
    "counting": Counting,
    "frozen-part": lambda: Odd(parameter("fixed", torch.randn(3), trained=False)),
    "data-parallel": lambda: nn.DataParallel(Odd(buffer("mask", causal_mask()))),
    "unicode": lambda: Odd(lambda model: model.add_module("größe", nn.Linear(2, 2))),
    "scripted": lambda: torch.jit.script(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))),
    "weight-norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
    "spectral-norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)),
}
REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "complex": (lambda: Odd(buffer("turns", torch.ones(2, dtype=torch.complex64))), "'turns': complex64.*view_as_real"),
    "sparse": (lambda: Odd(buffer("graph", torch.eye(3).to_sparse())), "'graph': sparse_coo.*to_dense"),
    "quantised": (
        lambda: Odd(buffer("q", torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8))),
        "'q': quant",
    ),
    "float8": (lambda: Odd(buffer("small", torch.ones(2).to(torch.float8_e4m3fn))), "'small': float8_e4m3fn"),
    "expanded": (lambda: Odd(buffer("wide", torch.ones(1).expand(4))), "'wide'.*clone"),
    "expanded-parameter": (lambda: Odd(parameter("wide", torch.ones(1).expand(4))), "'wide'.*clone"),
    "lazy": (lambda: Odd(lambda model: model.add_module("late", nn.LazyLinear(3))), "'late.weight'.*no shape yet"),
    "extra-state": (ExtraState, "'_extra_state': extra state"),
    "hidden": (lambda: Odd(hidden), "'secret': state_dict leaves it out"),
    "added": (lambda: Odd(added), "'more': an entry of state_dict"),
    "infinite-parameter": (lambda: Odd(parameter("mask", causal_mask(), trained=False)), "'mask'.*register_buffer"),
    "frozen": (lambda: nn.Linear(4, 3).requires_grad_(False), "frozen.*'weight'"),
    "no-parameters": (nn.Flatten, "no parameters"),
    "no-values": (lambda: Odd(parameter("late", torch.empty(3, device="meta"))), "'late'.*no values.*to_empty"),
    "no-values-in-a-buffer": (lambda: Odd(buffer("late", torch.empty(3, device="meta"))), "'late'.*no values"),
    "reserved": (lambda: Odd(buffer("__metadata__", torch.ones(1))), "__metadata__"),
}


class OddTask(Task):
    """A task whose option says which model it has."""

    class Options(Task.Options):
        """Which."""

        kind: str = "linear"

    options: Options

    def model(self) -> nn.Module:
        kind = self.options.kind
        return CARRIED[kind]() if kind in CARRIED else REFUSED[kind][0]()

    def train_data(self, data: NodeData) -> TensorDataset:
        x = torch.randn(48, 4, generator=torch.Generator().manual_seed(3))
        return TensorDataset(x, (x @ torch.linspace(-1, 1, 12).reshape(4, 3)).argmax(1))

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> LossOutput:
        logits = model(batch[0]).float()
        return LossOutput(nn.functional.cross_entropy(logits, batch[1]), len(batch[1]), logits, batch[1])
