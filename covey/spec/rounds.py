"""Mode "rounds": several nodes train from the same version, and their updates together make the next one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from covey.spec.mode import Mode
from covey.spec.policies import AsyncSection
from covey.spec.run import RunSpec

ROUNDS = Mode(
    name="rounds",
    section="rounds",
    unit="rounds",
    count_key="count",
    rule_kind="aggregator",
    synchronous=True,
    whole_shares=True,
    keeps_policy_state=False,
)


class RoundsSpec(RunSpec):
    """A run of mode "rounds"."""

    facts: ClassVar[Mode] = ROUNDS
    unread: ClassVar[Mapping[str, str]] = {
        "async.updates": 'write [rounds] count, or mode = "async" at the top',
        "async.min_nodes": 'write [rounds] min_nodes, or mode = "async" at the top',
        "async.max_staleness": 'nothing is stale in rounds; or write mode = "async" at the top',
        "async.deadline_s": 'write [rounds] deadline_s, or mode = "async" at the top',
    }
    mode: Literal["rounds"] = "rounds"
    unused_async: AsyncSection = Field(default=AsyncSection(), alias="async")
    """Has no meaning here, but is in every stored specification."""

    @property
    def rounds_in_all(self) -> int:
        """[rounds] count."""
        return self.rounds.count

    @property
    def min_nodes(self) -> int:
        """[rounds] min_nodes."""
        return self.rounds.min_nodes

    @property
    def deadline_s(self) -> float:
        """[rounds] deadline_s: for a round."""
        return self.rounds.deadline_s
