"""The most that a new run may ask for; a run on record may have more, and goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

STORED = {"bounds": "stored"}
"""Context of a validation of a specification that was accepted once, perhaps by a version that had no such bounds."""


@dataclass(frozen=True)
class Most:
    """Of a number, as part of its annotation: where it is new, it is at most this.

    Whoever reads a specification that somebody else calls accepted asks `Section.beyond`.

    Attributes:
        most: The bound.
    """

    most: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Hold a value against it when it is read, but for `STORED`."""

        def check(value: int | None, info: ValidationInfo) -> int | None:
            if info.context != STORED and self.is_below(value):
                raise PydanticKnownError("less_than_equal", {"le": self.most})
            return value

        return core_schema.with_info_after_validator_function(check, handler(source))

    def is_below(self, value: int | None) -> bool:
        """Whether it is less than this value; None: nobody asks for any."""
        return value is not None and value > self.most
