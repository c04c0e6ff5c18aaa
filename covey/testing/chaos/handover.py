"""A method of two phases, for chaos: every node says how it fared, and one of them is asked for its model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from covey.learning.recipe import PlainRecipe
from covey.methods.averaging import Averaging
from covey.methods.contract import Answer, Close, Open, Part, PlanContext, RunForm

VOTE = "vote"


class Handover(Averaging):
    """Phase 1: a vote of each node. Phase 2: the model of the one whose vote is the least."""

    modes = frozenset({"rounds"})
    phases = 2

    def parts(self, form: RunForm) -> Sequence[Part]:
        """`vote`, and in phase 2 the parts of plain averaging."""
        models = [replace(part, up=2) for part in super().parts(form)]
        return [Part(name=VOTE, max_bytes=64, up=1, combine="collect"), *models]

    def recipe(self, phase: int) -> Vote:
        """Makes the vote."""
        return Vote()

    def plan(
        self, phase: int, answers: Sequence[Answer], state: Mapping[str, Tensor], context: PlanContext
    ) -> Open | Close:
        """Ask the least vote for its model, and close with it."""
        received = [answer for answer in answers if answer.verdict == "received"]
        sent = tuple(answer.node for answer in received if answer.phase == 2)
        if sent:
            return Close(sent, {})
        asked = {answer.node for answer in answers if answer.phase == 2}
        votes = [(answer.parts[VOTE], answer.node) for answer in received if answer.node not in asked]
        return Open(2, {min(votes)[1]: ""}, {}) if votes else Close((), {})


class Vote(PlainRecipe):
    """A digest of the losses: anything that follows from the training alone."""

    def begin(self, context: Any) -> None:
        """Nothing yet."""
        self._seen = hashlib.sha256()

    def loss(self, model: Any, batch: Any, base: Any) -> Tensor:
        """The task's own, noted."""
        self._seen.update(repr(base.loss.item()).encode())
        loss: Tensor = base.loss
        return loss

    def finish(self) -> Mapping[str, Tensor | bytes]:
        """The vote."""
        return {VOTE: self._seen.hexdigest()[:32].encode()}
