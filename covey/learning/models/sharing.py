"""Which tensors of a model are shared, which stay on their node, and which nobody changes (`[exchange] share`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from covey.errors import SpecError
from covey.learning.models.entries import Entries, entries_of, unwrapped
from covey.spec import ExchangeSection

KEYS = ("share", "local", "frozen")
MAX_NAMED = 5
"""How many tensors a message names; of more it says how many there are."""


@dataclass(frozen=True)
class Sharing:
    """What becomes of a model's tensors.

    Attributes:
        local: Names of those that stay on their node, and are trained there.
        frozen: Names of those that keep their first value.
        unmatched: The patterns that no name matches, each with its key of the specification; none where nothing has a
            name.
    """

    local: frozenset[str]
    frozen: frozenset[str]
    unmatched: frozenset[tuple[str, str]] = frozenset()


def sharing_of(
    exchange: ExchangeSection,
    model: nn.Module,
    local: frozenset[str] = frozenset(),
    frozen: frozenset[str] = frozenset(),
) -> Sharing:
    """What `[exchange]` makes of a model's tensors.

    A tensor with several names (tied weights) goes by all of them; to be local or frozen, one that matches is enough.

    Args:
        exchange: The section.
        model: The model; it may have no values ("meta").
        local: What the run's method and task keep on the nodes.
        frozen: What the run's method leaves as it is at first.

    Raises:
        SpecError: A tensor would be local and frozen, or is frozen and changes in training all the same.
        LayoutError: An entry of the model's state_dict cannot be exchanged.
    """
    entries = entries_of(model)
    named = {key: _matching(entries, getattr(exchange, key)) for key in KEYS}
    hit = {key: {name for names in by_pattern.values() for name in names} for key, by_pattern in named.items()}
    frozen = frozen | hit["frozen"]
    own = frozenset(hit["local"] | local | (entries.tensors.keys() - hit["share"] - frozen))
    if both := sorted(own & frozen):
        raise SpecError(
            f"exchange.frozen: {both[0]!r} stays local as well; a tensor is trained on its node, or by nobody"
        )
    if moving := sorted(frozen & set(_statistics(model))):
        text = f"{moving[0]!r} is a statistic of batches, which training changes; name the weights only, and leave the "
        raise SpecError(f"exchange.frozen: {text}statistics shared or local")
    missed = {(key, pattern) for key, by_pattern in named.items() for pattern, names in by_pattern.items() if not names}
    return Sharing(own, frozen, frozenset(missed) if entries.tensors else frozenset())


def matching(model: nn.Module, patterns: Iterable[str]) -> frozenset[str]:
    """First names of the tensors that some of these patterns name."""
    return frozenset(name for names in _matching(entries_of(model), patterns).values() for name in names)


def shortened(names: Iterable[str]) -> str:
    """Some names of tensors, for a message."""
    listed = list(names)
    more = f" and {len(listed) - MAX_NAMED} more" if len(listed) > MAX_NAMED else ""
    return ", ".join(listed[:MAX_NAMED]) + more


def _matching(entries: Entries, patterns: Iterable[str]) -> dict[str, list[str]]:
    """The tensors, by their first names, that each pattern names."""
    names = {name: name for name in entries.tensors} | entries.aliases
    return {pattern: [first for name, first in names.items() if fnmatchcase(name, pattern)] for pattern in patterns}


def _statistics(model: nn.Module) -> Iterator[str]:
    """Buffers that a forward pass in training mode changes."""
    for prefix, module in unwrapped(model).named_modules():
        if isinstance(module, _NormBase):
            yield from (f"{prefix}.{name}".lstrip(".") for name in module._buffers)
