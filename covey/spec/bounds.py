"""Bounds of what a specification may ask for. They hold for what is submitted, and for what a node takes on.

What is on record was accepted, perhaps by a version with wider bounds: it is read as it is, whatever it asks for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

ON_RECORD: Mapping[str, str] = {"bounds": "on record"}
"""Context of a validation that leaves bounds to whoever asks `above_bounds`."""


def has_context(info: ValidationInfo, context: Mapping[str, str]) -> bool:
    """Whether a validation's context has all of this one."""
    return info.context is not None and context.items() <= info.context.items()


@dataclass(frozen=True)
class Most:
    """In a field's annotation: its largest value."""

    value: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_after_validator_function(self._checked, handler(source))

    def _checked(self, given: float | None, info: ValidationInfo) -> float | None:
        if not has_context(info, ON_RECORD) and given is not None and given > self.value:
            raise PydanticKnownError("less_than_equal", {"le": self.value})
        return given


def above_bounds(model: BaseModel, at: str = "") -> Iterator[str]:
    """What in a specification, or in a section of it, is above its bound: each key, with bound and value.

    Args:
        model: The specification, or the section.
        at: Where that stands, with a dot behind it.
    """
    for name, field in type(model).model_fields.items():
        given, key = getattr(model, name), f"{at}{field.alias or name}"
        if isinstance(given, BaseModel):
            yield from above_bounds(given, f"{key}.")
        for bound in field.metadata:
            if isinstance(bound, Most) and given is not None and given > bound.value:
                yield f"{key}: at most {bound.value:,} (given: {given:,})"
