"""Kardam: an update is applied at once if it changes as a smooth gradient would, and less the staler it is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from typing_extensions import override

from covey.aggregation.asynchronous.contract import (
    Arrival,
    AsyncContext,
    AsyncPolicy,
    AsyncStep,
    Decision,
    Pinned,
    PolicyState,
    Verdict,
)
from covey.aggregation.asynchronous.dampening import DampeningOptions, Kind
from covey.aggregation.asynchronous.kardam_filters import (
    Frequency,
    coefficient,
    fraction_quantile,
    gradient_norms,
    interpolated_quantile,
    model_distance,
    model_norm,
    next_window,
    quantile,
    too_frequent,
)
from covey.aggregation.matrix import Row, UpdateMatrix
from covey.errors import RunFailed

HISTORY = 25
"""Coefficients of each worker that variant `official-25` keeps."""
OFFICIAL_FRACTION = 2 / 3
"""The quantile that the authors' code has whatever n and f are."""
OFFICIAL = ("official", "official-25")


class WorkerRecord(PolicyState):
    """A worker's last update (accepted or not), and its last coefficients, newest last; of `official` its largest."""

    number: int
    version: int
    norm: float
    coefficients: tuple[float, ...] = ()


class KardamState(PolicyState):
    """O(1) scalars a worker, one update and one version a worker by number, and the last accepted update."""

    workers: dict[str, WorkerRecord] = Field(default={})
    window: tuple[str, ...] = ()
    """The nodes of the last 2f accepted updates."""
    rejections: int = 0
    """How many updates the Lipschitz filter has rejected since the last acceptance."""
    accepted: int | None = None
    """The last accepted update, for the variants that compare with it."""
    before: int | None = None
    """The version before the newest one, for the same variants."""


class KardamOptions(DampeningOptions):
    """Options of `kardam`."""

    f: int = Field(default=1, ge=0)
    """How many of the nodes may be Byzantine; the run needs more than 3 f nodes."""
    variant: Literal["self", "server", "official", "official-25"] = "self"
    """What an update is compared with: the node's own last one, or the last accepted one."""
    frequency: Frequency = "off"
    """The frequency filter."""
    dampening: Kind = "inverse"
    """How an update's share falls with its staleness."""
    norm_bound: float | None = Field(default=None, ge=0)
    """Also reject an update whose norm is more than so many times the (n - f)-th smallest of the nodes' newest
    norms; 0: the paper's filter alone; default: 2 for variant `self`, 0 for the others."""
    patience: int | None = Field(default=None, ge=1)
    """After so many rejections in a row the next update may escape the Lipschitz filter; default: the number of
    nodes."""


@dataclass(frozen=True)
class _Finding:
    """What the Lipschitz filter says: why it rejects (or empty), and whether this was an escape."""

    refused: str = ""
    escaped: bool = False


class Kardam(AsyncPolicy[KardamState]):
    """Lipschitz filter, frequency filter and staleness-aware dampening of asynchronous gradients.

    x <- x - lr Lambda(tau) g for each accepted g, one at a time (the paper's M = 1). Damaskinos et al.,
    "Asynchronous Byzantine Machine Learning (the case of SGD)" (ICML 2018, arXiv 1802.07928); formulas from its
    authors' and others' code, since the paper's text was not at hand.

    Assumes n > 3 f nodes, and gradients of one function: identically distributed data, one local step. The declared
    weights have no part in it.

    Lipschitz filter: an update of node p is accepted if K <= quantile_{(n-f)/n} of the nodes' newest K_p, where
    K_p = ||g_p - g_p'|| / ||x_p - x_p'|| is of p's own last two updates and the versions they were computed on.
    - `self` (default): K = K_p. Like is compared with like, so that of honest updates (n - f) / n are accepted.
    - `server`: K = ||g - g_last|| / ||x_t - x_{t-1}||, g_last the last accepted update, x_t the newest version: the
      literal reading. Noise of two nodes' batches over one small step is compared with that over many steps, and
      nearly everything is rejected.
    - `official`: as `server`, but K_p is the largest that p ever had, the quantile is that of 2/3, interpolated, and
      the first K is ||g|| / ||x_t|| (the authors' code: its lists of 26 lose the smallest, not the oldest).
    - `official-25`: as `official`, but K_p is the largest of p's last 25, the quantile is the ceil(2 m / 3)-th
      smallest, and where there is no K the update is accepted. What `official` was before, for the runs that had it.

    Where there is no K (a node's first update, or no version in between), `official` accepts; the others accept
    an update whose norm is at most the (n - f)-th smallest of the nodes' newest norms. This is a deviation: it keeps
    a huge first update out. While only m nodes have a value, the (m - f)-th smallest is used, so that f
    attackers cannot raise a limit above all honest values.

    Norm bound, a deviation too (`norm_bound`): nodes at unequal pace have unequal ||x_p - x_p'||, so that now and
    then K of -10 g is below the quantile, and a few such steps undo hundreds of honest ones. An update of more than
    twice the (n - f)-th smallest norm is therefore rejected. On the digits task (10 nodes in random order, 3 of them
    sending -10 g) this takes the accepted attacks from 2 % to less than 0.2 %, and the honest ones hardly at all.

    Escape from starvation: after `patience` rejections in a row by this filter, the next update is accepted if its
    norm passes as above (`official`: in any case); the verdict says so, and has the number `escape`.

    Frequency filter: see `too_frequent`; `strict` costs honest nodes much of their work, and caps each at
    1 / (2 f + 1) of the accepted updates.

    It cannot see -g: K does not change when a node flips the sign of all its gradients.
    """

    Options = KardamOptions
    State = KardamState
    compares_gradients = True
    options: KardamOptions

    def min_nodes(self) -> int:
        """3 f + 1."""
        return 3 * self.options.f + 1

    def pinned(self, state: KardamState) -> Pinned:
        """Each worker's last update and its version, and what the last accepted update needs."""
        updates = {worker.number for worker in state.workers.values()}
        versions = {worker.version for worker in state.workers.values()}
        if state.accepted is not None:
            updates.add(state.accepted)
        if state.before is not None:
            versions.add(state.before)
        return Pinned(tuple(sorted(updates)), tuple(sorted(versions)))

    @override
    def dropped(self, state: KardamState, numbers: Collection[int]) -> KardamState:
        """A worker whose last update is gone starts anew; what is compared with the last accepted one waits for one."""
        workers = {node: worker for node, worker in state.workers.items() if worker.number not in numbers}
        changes: dict[str, Any] = {"workers": workers}
        if state.accepted in numbers:
            changes |= {"accepted": None, "before": None}
        return state.model_copy(update=changes)

    def decide(self, arrival: Arrival, state: KardamState, context: AsyncContext) -> Decision[KardamState]:
        """Apply the update, dampened, or reject it.

        Raises:
            RunFailed: The roster has at most 3 f nodes, or not this one.
        """
        context.index(arrival.node)
        if len(context.roster) < self.min_nodes():
            n, f = len(context.roster), self.options.f
            raise RunFailed(f"kardam with f = {f} needs more than {3 * f} nodes, the roster has {n}")
        record, fresh = self._measured(arrival, state, context)
        tau = context.staleness(arrival)
        factor = self.options.factor(tau)
        numbers = {"staleness": float(tau), "dampening": factor, "norm": record.norm}
        seen = state.model_copy(update={"workers": {**state.workers, arrival.node: record}})
        if too_frequent(arrival.node, state.window, self.options.f, self.options.frequency):
            numbers["in_window"] = float(state.window.count(arrival.node))
            return _rejected(arrival, seen, "too frequent among the last accepted updates", numbers)
        own = fresh if self.options.variant == "self" else self._against_accepted(arrival, record, state, context)
        finding = self._lipschitz(arrival.node, own, seen, len(context.roster), numbers)
        if finding.refused:
            counted = seen.model_copy(update={"rejections": state.rejections + 1})
            return _rejected(arrival, counted, finding.refused, numbers)
        return self._accepted(arrival, seen, context, factor, numbers, finding)

    def _measured(
        self, arrival: Arrival, state: KardamState, context: AsyncContext
    ) -> tuple[WorkerRecord, float | None]:
        """The node's record with this update as the last one, and K_p of it if there is one."""
        old, number, version = state.workers.get(arrival.node), arrival.number, arrival.base_version
        if old is None or old.version == version:
            norm, _ = gradient_norms(arrival.reader, None)
            kept = old.coefficients if old else ()
            return WorkerRecord(number=number, version=version, norm=norm, coefficients=kept), None
        norm, change = gradient_norms(arrival.reader, context.records.update(old.number))
        fresh = coefficient(change, model_distance(context.records.model(version), context.records.model(old.version)))
        history = {"official": 2, "official-25": HISTORY}.get(self.options.variant, 1)
        kept = old.coefficients if fresh is None else (*old.coefficients, fresh)[-history:]
        if self.options.variant == "official" and kept:
            kept = (max(kept),)
        return WorkerRecord(number=number, version=version, norm=norm, coefficients=kept), fresh

    def _lipschitz(
        self, node: str, own: float | None, seen: KardamState, n: int, numbers: dict[str, float]
    ) -> _Finding:
        """Judge a node's newest update by its coefficient `own`; `seen` has it already."""
        limit, official = self._limit(seen), self.options.variant in OFFICIAL
        numbers |= {name: value for name, value in (("coefficient", own), ("quantile", limit)) if value is not None}
        if (bound := self._norm_bound()) and (refused := self._too_large(node, seen, numbers, bound)):
            return _Finding(refused)
        if own is None or limit is None:
            return _Finding() if official else _Finding(self._too_large(node, seen, numbers))
        if own <= limit:
            return _Finding()
        if seen.rejections < (self.options.patience or n):
            return _Finding(f"Lipschitz coefficient {own:.4g} is above the quantile {limit:.4g}")
        refused = "" if official else self._too_large(node, seen, numbers)
        return _Finding(refused, escaped=not refused)

    def _limit(self, seen: KardamState) -> float | None:
        known = [max(worker.coefficients) for worker in seen.workers.values() if worker.coefficients]
        if self.options.variant in OFFICIAL:
            named = interpolated_quantile if self.options.variant == "official" else fraction_quantile
            return named(known, OFFICIAL_FRACTION)
        return quantile(known, self.options.f)

    def _against_accepted(
        self, arrival: Arrival, record: WorkerRecord, state: KardamState, context: AsyncContext
    ) -> float | None:
        """The server's coefficient: from the last accepted update to this one, over the last step of the model."""
        records = context.records
        if state.accepted is None or state.before is None:
            first = self.options.variant == "official"
            return coefficient(record.norm, model_norm(records.model(context.version))) if first else None
        _, change = gradient_norms(arrival.reader, records.update(state.accepted))
        return coefficient(change, model_distance(records.model(context.version), records.model(state.before)))

    def _norm_bound(self) -> float:
        given = self.options.norm_bound
        return given if given is not None else 2.0 * (self.options.variant == "self")

    def _too_large(self, node: str, seen: KardamState, numbers: dict[str, float], times: float = 1.0) -> str:
        """Why an update is rejected for its norm; empty if this is at most so many times an honest node's."""
        limit = quantile([worker.norm for worker in seen.workers.values()], self.options.f)
        if limit is None:
            return f"no coefficient yet, and too few nodes are known for f = {self.options.f}"
        numbers["norm_quantile"] = limit
        own = seen.workers[node].norm
        return "" if own <= times * limit else f"norm {own:.4g} is above {times:g} x the quantile {limit:.4g} of norms"

    def _accepted(
        self,
        arrival: Arrival,
        seen: KardamState,
        context: AsyncContext,
        factor: float,
        numbers: dict[str, float],
        finding: _Finding,
    ) -> Decision[KardamState]:
        compares = self.options.variant != "self"
        state = seen.model_copy(
            update={
                "window": next_window(seen.window, arrival.node, self.options.f),
                "rejections": 0,
                "accepted": arrival.number if compares else None,
                "before": context.version if compares else None,
            }
        )
        reason = ""
        if finding.escaped:
            numbers["escape"] = 1.0
            reason = f"escaped the Lipschitz filter after {seen.rejections} rejections in a row"
        verdict = Verdict(arrival.node, "accepted", reason, factor, numbers, arrival.number)
        row = UpdateMatrix([Row(arrival.node, 1.0, arrival.reader)])
        direction = row.weighted_sum(torch.tensor([factor], dtype=torch.float64))
        # A gradient steps in full; running statistics take the node's part of the mean over all nodes.
        step = AsyncStep(direction, {arrival.number: 1.0}, mixing=factor / len(context.roster))
        return Decision((verdict,), state, step)


def _rejected(arrival: Arrival, state: KardamState, reason: str, numbers: dict[str, float]) -> Decision[KardamState]:
    return Decision((Verdict(arrival.node, "rejected", reason, 0.0, numbers, arrival.number),), state)
