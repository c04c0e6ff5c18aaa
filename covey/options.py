"""Options of plug-ins: one frozen model each, and errors that name the place in the user's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from covey.errors import SpecError
from covey.validation import explain


class PluginOptions(BaseModel):
    """Base of every plug-in's options: frozen, unknown keys refused, numbers finite."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )


class Placed(dict[str, Any]):
    """Options that know where they stand.

    Args:
        options: As given.
        place: Where, with dots: `aggregation.fallback.options`.
    """

    def __init__(self, options: Mapping[str, Any], place: str) -> None:
        super().__init__(options)
        self.place = place


def place_of(options: Mapping[str, Any] | None) -> str:
    """Where options stand in the user's file; empty for those that were given in code."""
    return options.place if isinstance(options, Placed) else ""


O = TypeVar("O", bound=PluginOptions)  # noqa: E741 - the options' type


def validated(model: type[O], options: Mapping[str, Any], section: str) -> O:
    """Options as their model.

    Args:
        model: The plug-in's `Options`.
        options: As given in the run specification.
        section: Where they stand in the specification, for the message: `aggregation.options`.

    Raises:
        SpecError: A key is unknown, missing or has a wrong value; the message names the key, the value and
            the choices.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        raise SpecError(explain(error, model, section)) from error
