"""[rounds] and [async]: the policies of the first two modes.

Every stored specification has both, whatever its mode, and its hash depends on them. A mode that comes later has its
section in its own specifications only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from covey.spec.bounds import Most
from covey.spec.sections import MOST_RETRIES, MOST_ROUNDS, NonNegative, Positive, Section, Wrong


class RoundsSection(Section):
    """[rounds]: the synchronous mode's policy; other modes have `rejoin_s`, `max_retries` and `short` from it, too."""

    count: Annotated[int, Field(ge=1), Most(MOST_ROUNDS)] = 20
    participants: float | int = Field(default=1.0, gt=0)
    """A fraction (a decimal, at most 1.0) or a number (an integer) of the eligible nodes, drawn from the seed."""
    min_nodes: int = Field(default=1, ge=1)
    """A round is opened, and closed, with at least so many nodes; default: where `participants` is a number, as many as
    the quorum takes of them, else 1. The rule may need more."""
    quorum: float = Field(default=1.0, gt=0, le=1)
    deadline_s: Positive = 600.0
    hard_deadline_s: Positive = 3600.0
    rejoin_s: NonNegative = 30.0
    """How long a node that lost its connection is still expected back before it counts as lost."""
    max_retries: Annotated[int, Field(ge=0), Most(MOST_RETRIES)] = 3
    short: Literal["wait", "fail"] = "wait"
    """What to do when the retries are used up: wait for more nodes, or fail the run."""

    @model_validator(mode="before")
    @classmethod
    def _as_many_as_the_quorum(cls, data: Any) -> Any:
        """A run of three participants, all of whose updates it wants, does not begin with one node."""
        if not isinstance(data, dict) or "min_nodes" in data:
            return data
        wanted, quorum = data.get("participants"), data.get("quorum", 1.0)
        if not isinstance(wanted, int) or isinstance(wanted, bool) or not isinstance(quorum, int | float):
            return data
        if wanted < 1 or not 0 < quorum <= 1:
            return data  # the fields say what is wrong
        return {**data, "min_nodes": math.ceil(quorum * wanted)}

    @override
    def impossible(self) -> Iterator[Wrong]:
        if isinstance(self.participants, float) and self.participants > 1:
            text = "a fraction is at most 1.0; write a number of nodes as an integer"
            yield "participants", text, self.participants
        if isinstance(self.participants, int) and self.participants < self.min_nodes:
            text = f"fewer than min_nodes = {self.min_nodes}: no round could ever close"
            yield "participants", text, self.participants
        if self.hard_deadline_s < self.deadline_s:
            yield "hard_deadline_s", f"earlier than deadline_s = {self.deadline_s:g}", self.hard_deadline_s


class AsyncSection(Section):
    """[async]: the asynchronous mode's policy (mode = "async")."""

    updates: Annotated[int, Field(ge=1), Most(MOST_ROUNDS)] = 1000
    """The run ends when so many updates have been decided on."""
    min_nodes: int = Field(default=1, ge=1)
    """The run starts, and goes on, with at least so many nodes; default: what the policy needs for its f."""
    max_staleness: int | None = Field(default=None, ge=0)
    """Updates that are more versions old than this are rejected."""
    deadline_s: Positive = 600.0
    """How long an assignment may take without progress before the node counts as lost for it."""
