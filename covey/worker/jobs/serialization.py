"""Jobs and results as JSON.

One JSON object a line. To the worker: `{"id", "op", "args"}` and `{"cancel": id}`. From it:
`{"id", "alive"}` (it began, or made a step), `{"id", "progress"}`, `{"id", "result"}` and
`{"id", "error": {"code", "message"}}`. Tensors travel as files, named by their paths.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from covey.errors import WorkerError

T = TypeVar("T")


@cache
def adapter_of(kind: Any) -> TypeAdapter[Any]:
    """What reads and writes values of a kind; made once, in milliseconds."""
    return TypeAdapter(kind)


def to_json(value: object) -> Any:
    """A job or result as plain JSON values."""
    kind: Any = type(value)
    return adapter_of(kind).dump_python(value, mode="json")


def from_json(kind: type[T], value: object) -> T:
    """The inverse of `to_json`.

    Raises:
        WorkerError: The value is not of this kind; the message says where.
    """
    adapter = adapter_of(cast(Any, kind))
    try:
        read: T = adapter.validate_python(value)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise WorkerError(f"not a {kind.__name__}: {wrong}") from error
    return read
