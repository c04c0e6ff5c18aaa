"""Majority vote: in each coordinate the sign that most updates have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, JsonValue, model_validator
from torch import Tensor

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator, ByzantineOptions, Verdict
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.votes import Ballot, ServerFeedback, Ties, agreeing, vote_blocks, words_of
from covey.errors import LayoutError, RunFailed
from covey.seeds import derive_seed
from covey.vectors import PackedSigns, TensorVector, Vector

FEEDBACK = "feedback"
CREDIT = "credit"
FIRST_CREDIT = 1.0
CREDIT_DECAY = 0.6
CREDIT_STEPS = 1024
"""Credits are multiples of 1 / 1024, from -2.5 to 2.5: so float32 sums of 6,553 of them are exact in any order."""


class MajorityVote(Aggregator):
    """u_j = sign(sum_m sign(x_mj)): +1 or -1 in each coordinate. The step's length is the learning rate.

    Bernstein, Zhao, Azizzadenesheli, Anandkumar, "signSGD with Majority Vote is Communication Efficient and Fault
    Tolerant" (ICLR 2019, arXiv 1810.05291), Algorithm 1. Assumes n > 2f, f who send the opposite and do not
    cooperate, and unimodal symmetric noise. Only signs are read, packed ones without unpacking them.

    One bit has no third value, so zero counts as +1. A coordinate with as many votes for +1 as for -1 (even n) is
    decided by `tie`: +1, or a bit that is drawn for each round and coordinate from the run's seed.

    `error_feedback = "server"`: v = mean_m q_m + e, u = sign(v), e <- v - u / M, where q_m are the n = M votes and e,
    kept as the state `feedback`, is zero at first. So sum_t u_t / M + e_T = sum_t mean_m q_tm. With `rho`: e <- (1 -
    rho) (mean_m q_m - u / M) + rho e. Jin, Huang, He, Dai, Wu, "Stochastic-Sign SGD for Federated Learning with
    Theoretical Guarantees" (arXiv 2002.10940), as its authors' code has it; `rho` is of Lyu's code (0.5 in its
    README, 1 by default).

    `credit`: a vote weighs credit_m, and credit_m <- 0.6 credit_m + mean_j (+1 where the node voted like the
    result, -1 where not), kept as the state `credit`, float32 `[nodes of the roster]`. From the same authors' code.
    So who votes at random comes to weigh nothing, and a vote of negative credit counts for the opposite of what it
    says. Our own: the first credit is 1, credits are rounded to 1/1024, and if all are zero each vote counts the
    same. A node that is not in a round keeps its credit. `credit = "agreement"` adds the part of the coordinates in
    which the node voted like the result, 0 to 1, so that credits are never negative: what `true` meant before, kept
    for the runs that had it.

    Every node is accepted; a verdict's weight is the vote's share (0 with a negative credit), `agreement` the part of
    the coordinates in which the node voted like the result, `credit` what its vote weighed.
    """

    class Options(ByzantineOptions):
        """Options of majority vote."""

        tie: Literal["positive", "random"] = "positive"
        """Who wins where both sides have as many votes."""
        error_feedback: Literal["none", "server"] = "none"
        """Whether what the sign loses of the mean vote is added to the next round's."""
        rho: float | None = Field(default=None, ge=0, lt=1)
        """With error feedback: how much of the old error stays, the rest being this round's alone."""
        credit: bool | Literal["agreement"] = False
        """Whether a vote weighs more, the more the node agreed with earlier results; `agreement`: and never less than
        nothing."""

        @model_validator(mode="after")
        def _check(self) -> MajorityVote.Options:
            if self.rho is not None and self.error_feedback == "none":
                raise ValueError('rho has no meaning without error feedback; add error_feedback = "server"')
            return self

    options: Options
    votes = True

    def __init__(self, options: Mapping[str, JsonValue] | None = None) -> None:
        """Check the options; they decide what is kept.

        Raises:
            SpecError: An option is unknown or has a wrong value.
        """
        super().__init__(options)
        kept = {FEEDBACK: self.options.error_feedback == "server", CREDIT: bool(self.options.credit)}
        self.state_names = tuple(name for name, used in kept.items() if used)  # type: ignore[misc]

    def min_updates(self) -> int:
        """2f + 1."""
        return 2 * self.options.f + 1

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """The votes' result, `PackedSigns` of d; every row is accepted. Its bits (d / 8 bytes) are made at once.

        Raises:
            RunFailed: Fewer than `min_updates()` rows, or with `credit` a node that is not in the roster.
            LayoutError: The kept error has another length than the rows, or there are more credits than nodes.
        """
        self.require(updates)
        credits = self._credits(updates, state, context)
        ballot = Ballot(updates, self._ties(context), credits, self._error(updates, state))
        bits, agreements = elect(updates, ballot)
        result = PackedSigns(bits, updates.d)
        shares = ballot.weights.clamp(min=0) / ballot.weights.abs().sum()
        verdicts = [
            Verdict(node, "accepted", share=share, numbers={"agreement": agreement} | numbers)
            for node, share, agreement, numbers in zip(
                updates.nodes, shares.tolist(), agreements.tolist(), self._numbers(credits, updates.n), strict=True
            )
        ]
        return Aggregate(result, tuple(verdicts), self._kept(updates, ballot, result, agreements, state, context))

    def _ties(self, context: AggregationContext) -> Ties:
        random = self.options.tie == "random"
        return Ties(derive_seed(context.seed, "majority-vote ties", context.round) if random else None)

    def _error(self, updates: UpdateMatrix, state: Mapping[str, Tensor]) -> Tensor | None:
        if self.options.error_feedback == "none":
            return None
        error = state.get(FEEDBACK, torch.zeros(1).expand(updates.d))
        if len(error) != updates.d:
            raise LayoutError(f"the error feedback has {len(error)} elements, the rows have {updates.d}")
        return error

    def _credits(
        self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext
    ) -> Tensor | None:
        """What each row's vote weighs, float32 `[n]`; None: all the same."""
        if not self.options.credit:
            return None
        credits = _credit_of_roster(state, context)[_places(updates, context)]
        return credits if credits.any() else torch.ones(updates.n)

    def _numbers(self, credits: Tensor | None, n: int) -> list[dict[str, float]]:
        return [{}] * n if credits is None else [{CREDIT: credit} for credit in credits.tolist()]

    def _kept(
        self,
        updates: UpdateMatrix,
        ballot: Ballot,
        result: PackedSigns,
        agreements: NDArray[np.float64],
        state: Mapping[str, Tensor],
        context: AggregationContext,
    ) -> dict[str, Vector]:
        kept: dict[str, Vector] = {}
        if self.options.error_feedback == "server":
            kept[FEEDBACK] = ServerFeedback(ballot, result, self.options.rho)
        if self.options.credit:
            credits = _credit_of_roster(state, context)
            places = _places(updates, context)
            earned = agreements if self.options.credit == "agreement" else 2 * agreements - 1
            new = CREDIT_DECAY * credits[places].double() + torch.from_numpy(earned)
            credits[places] = ((new * CREDIT_STEPS).round() / CREDIT_STEPS).float()
            kept[CREDIT] = TensorVector(credits)
        return kept


def elect(updates: UpdateMatrix, ballot: Ballot) -> tuple[Tensor, NDArray[np.float64]]:
    """Count all votes.

    Returns:
        The result as packed bits, uint8 `[ceil(d / 8)]`, and in which part of the coordinates each row voted like it,
        float64 `[n]`.
    """
    bits = np.empty(-(-updates.d // 8), dtype=np.uint8)
    agreements = np.zeros(updates.n, dtype=np.int64)
    for columns in vote_blocks(updates.d):
        words = words_of(updates, columns)
        result = ballot.result(columns, words)
        agreements += agreeing(words, result, columns.stop - columns.start)
        taken = bits[columns.start // 8 : -(-columns.stop // 8)]
        taken[:] = result.view(np.uint8)[: len(taken)]
    return torch.from_numpy(bits), agreements / max(updates.d, 1)


def _credit_of_roster(state: Mapping[str, Tensor], context: AggregationContext) -> Tensor:
    """What every node of the roster has now, float32 `[nodes]`, in new memory; newcomers have `FIRST_CREDIT`."""
    credits = torch.full((len(context.roster),), FIRST_CREDIT)
    known = state.get(CREDIT, credits[:0])
    if len(known) > len(credits):
        raise LayoutError(f"there are credits of {len(known)} nodes, and the roster has {len(credits)}")
    credits[: len(known)] = known
    return credits


def _places(updates: UpdateMatrix, context: AggregationContext) -> list[int]:
    place = {node: i for i, node in enumerate(context.roster)}
    if missing := [node for node in updates.nodes if node not in place]:
        raise RunFailed(
            f"majority-vote with credit keeps one for each node of the roster, and {missing[0]!r} is not in it"
        )
    return [place[node] for node in updates.nodes]
