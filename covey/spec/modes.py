"""The one place where a mode is looked up by its name."""

from __future__ import annotations

from collections.abc import Mapping

from covey.errors import SpecError
from covey.spec.asynchronous import AsyncSpec
from covey.spec.gossip import GossipSpec
from covey.spec.mode import Mode
from covey.spec.rounds import ROUNDS, RoundsSpec
from covey.spec.run import RunSpec
from covey.validation import explain, refusal

MODELS: Mapping[str, type[RunSpec]] = {model.facts.name: model for model in (RoundsSpec, AsyncSpec, GossipSpec)}
"""Mode to the model of its specifications."""
MODES: Mapping[str, Mode] = {name: model.facts for name, model in MODELS.items()}
"""Mode to its facts."""
DEFAULT = ROUNDS.name
"""The mode of a specification that names none."""


def mode_named(name: str) -> Mode:
    """The facts of the mode of a run on record, or on the wire.

    Raises:
        SpecError: This version has no such mode.
    """
    return model_named(name).facts


def model_named(name: object) -> type[RunSpec]:
    """The model of a mode's specifications.

    Args:
        name: What `mode` is in the specification, whatever a user wrote there.

    Raises:
        SpecError: This version has no such mode; the message names the key, the value and the choices.
    """
    if isinstance(name, str) and name in MODELS:
        return MODELS[name]
    choices = "Input should be " + " or ".join(map(repr, MODELS))
    raise SpecError(explain(refusal("mode", choices, name), RunSpec))
