"""Mode "async": each node trains from the newest version when it is free, and each update is decided on by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from covey.spec.mode import Mode
from covey.spec.policies import AsyncSection
from covey.spec.run import RunSpec

ASYNC = Mode(
    name="async",
    section="async",
    unit="updates",
    count_key="updates",
    rule_kind="async-policy",
    synchronous=False,
    whole_shares=False,
    keeps_policy_state=True,
)


class AsyncSpec(RunSpec):
    """A run of mode "async". Of [rounds] it has `min_nodes`, `rejoin_s`, `max_retries` and `short`."""

    facts: ClassVar[Mode] = ASYNC
    unread: ClassVar[Mapping[str, str]] = {
        "rounds.count": "write [async] updates",
        "rounds.participants": "every node gets its next assignment when it is free",
        "rounds.quorum": "each update is decided on by itself",
        "rounds.deadline_s": "write [async] deadline_s",
        "rounds.hard_deadline_s": "write [async] deadline_s",
    }
    mode: Literal["async"]
    asynchronous: AsyncSection = Field(default=AsyncSection(), alias="async")

    @property
    def rounds_in_all(self) -> int:
        """[async] updates."""
        return self.asynchronous.updates

    @property
    def min_nodes(self) -> int:
        """[async] min_nodes, or [rounds] min_nodes where that is more."""
        return max(self.asynchronous.min_nodes, self.rounds.min_nodes)

    @property
    def deadline_s(self) -> float:
        """[async] deadline_s: for one assignment without progress."""
        return self.asynchronous.deadline_s

    @property
    def max_staleness(self) -> int | None:
        """[async] max_staleness."""
        return self.asynchronous.max_staleness
