"""What the methods of a task must return: a wrong value is told what should be in its place."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from covey.errors import TaskError
from covey.learning.statistics import Stat
from covey.user_code.place import shown

T = TypeVar("T")
EXAMPLE = 'such as {"loss": Stat(loss.item() * examples, examples)}'


def described(value: object) -> str:
    """A value as an error names it: its class, and what tells values of it apart."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if value is None:
        return "None"
    kind = type(value).__name__
    text = repr(value) if isinstance(value, bool | int | float | str) else ""
    return f"the {kind} {text[:50]}" if text else f"a{'n' if kind[0] in 'aeiouAEIOU' else ''} {kind}"


def require(value: object, kind: type[T], what: str, should: str) -> T:
    """The value, which must be of a class.

    Args:
        value: What a method returned.
        kind: What it must be.
        what: The method, `Task.loss`.
        should: What to return, as a whole clause.

    Raises:
        TaskError: It is something else.
    """
    if not isinstance(value, kind):
        raise TaskError(f"{what} returned {described(value)}; {should}")
    return value


def method_of(task: object, name: str) -> str:
    """A method of a task as an error names it, with its place: `Tumours.loss (my_tasks.py:31)`."""
    kind: Any = type(task)
    return _method_of(kind, name)


@lru_cache(maxsize=64)  # each step of training asks for it, and looking for the place takes as long as a small step
def _method_of(kind: Any, name: str) -> str:
    function = inspect.unwrap(getattr(kind, name))
    code = getattr(function, "__code__", None)
    at = f" ({shown(code.co_filename)}:{code.co_firstlineno})" if code is not None else ""
    return f"{kind.__qualname__}.{name}{at}"


def model_of(value: object, what: str) -> nn.Module:
    """What `Task.model` returned. Raises `TaskError` where that is no model."""
    return require(value, nn.Module, what, "return a torch.nn.Module (an object of it, not the class)")


def data_of(value: Any, what: str) -> Any:
    """What `Task.train_data` returned, or another method that gives examples.

    Raises:
        TaskError: It is no data set; the message says what to make of it.
    """
    should = "return a data set with __len__ and __getitem__, such as TensorDataset(x, y)"
    if isinstance(value, DataLoader):
        should = "return its data set (loader.dataset): batches are made by Covey, as [training] says"
    elif isinstance(value, Tensor) or (isinstance(value, tuple) and any(isinstance(item, Tensor) for item in value)):
        should = "put the tensors into torch.utils.data.TensorDataset(x, y)"
    elif isinstance(value, Dataset) or (hasattr(value, "__len__") and hasattr(value, "__getitem__")):
        if not isinstance(value, str | bytes | Mapping):
            return value
    elif value is None:
        should += "; where a node has no data, raise an error that says so"
    raise TaskError(f"{what} returned {described(value)}; {should}")


def stats_of(value: object, what: str) -> dict[str, Stat]:
    """What `Task.evaluate` returned, or the metrics of `Task.fit`: each a sum and a count as plain numbers.

    None in the place of a metric means that it is missing, as a total that is not a number does.

    Raises:
        TaskError: It is not a mapping of names to `Stat`.
    """
    should = f"return a mapping of names to Stat(total, count), {EXAMPLE}"
    mapping = require(value, Mapping, what, should)
    return {_name(name, what, should): _stat(name, stat, what, should) for name, stat in mapping.items()}


def _name(name: object, what: str, should: str) -> str:
    if not isinstance(name, str) or not name:
        raise TaskError(f"{what} returned a metric called {name!r}; {should}")
    return name


def _stat(name: str, stat: object, what: str, should: str) -> Stat:
    if stat is None:
        return Stat.missing("it is None")
    if not isinstance(stat, Stat):
        raise TaskError(f"{what} returned {described(stat)} for {name!r}; {should}")
    if stat.total is None or stat.count is None:
        return Stat.missing("it is None")
    try:
        return Stat(float(stat.total), float(stat.count), stat.reason)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TaskError(
            f"{what} returned Stat({stat.total!r}, {stat.count!r}) for {name!r}: {error}; {should}"
        ) from error
