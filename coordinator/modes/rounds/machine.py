"""The round machine: synchronous rounds as a pure state machine, `handle(event) -> list[Action]`.

It does no I/O and has no clock: events carry the time, and the caller sends a `Tick` at `wake_at`. What it needs after
a crash is in the store, because the caller executes actions in order and makes `OpenRound`, `RecordOutcome`,
`Aggregate` and `Commit` durable before it goes on; `Restored` brings it back.

A run's round goes  (idle) -> collecting -> aggregating -> committed -> (idle of the next round).
It closes when every invited node has answered (update, rejection, decline, loss); else at `deadline_s`, which uploads
that make progress extend up to `hard_deadline_s`. With fewer than max(min_nodes, ceil(quorum x invited)) updates it is
tried again with the nodes that are there, keeping every update it has; after `max_retries` it waits, or fails the run.

A node that is away for less than `rejoin_s` still counts as expected: a restart of a node, or of this coordinator,
changes nothing in who takes part.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

from covey.coordinator.modes.rounds import events as ev
from covey.seeds import derive_seed
from covey.storage.record.contract import RunState, Verdict


class RoundMachine:
    """One run in `rounds` mode.

    Args:
        policy: The numbers it goes by.
        roster: Node ids in order, fixed at the run's start; nodes that come later are appended.
        expected: Nodes not connected now but recently seen, with the time they were last seen.
        restored: The store's knowledge of a run in progress.
    """

    def __init__(
        self,
        policy: ev.RoundPolicy,
        roster: Iterable[str],
        expected: dict[str, float] | None = None,
        restored: ev.Restored | None = None,
    ) -> None:
        restored = restored or ev.Restored()
        self.policy = policy
        self.roster = list(roster)
        self.committed = restored.committed
        self.round = restored.round
        self.attempt = restored.attempt
        self.invited = restored.invited
        self.answers = dict(restored.answers)
        self.state = "aggregating" if restored.aggregating else "collecting" if restored.round else "idle"
        self._unevaluated = set(restored.unevaluated)
        self._present: set[str] = set()
        self._away: dict[str, float] = dict(expected or {})
        self._attempt_at = 0.0
        self._progress: dict[str, float] = {}
        self._retries = 0
        self._stuck = False
        self._paused = False
        self._started = False
        self._reason = ""
        self._evaluating: set[str] = set()
        self._evaluation_until = math.inf
        self._now = 0.0
        self._actions: list[ev.Action] = []

    # -- the outside ----------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether the run is in a terminal state."""
        return self.state == "done"

    @property
    def wake_at(self) -> float | None:
        """When the machine wants a `Tick` at the latest; None: only an event can move it."""
        times = [seen + self.policy.rejoin_s for seen in self._away.values()]
        if self.state == "collecting" and not self._stuck:
            times.append(self._deadline())
        if self.state == "finishing" and math.isfinite(self._evaluation_until):
            times.append(self._evaluation_until)
        return max(self._now, min(times)) if times else None

    def collects(self, node: str, number: int) -> bool:
        """Whether an update of this node for this round would count now."""
        return self.state == "collecting" and number == self.round and node in self.invited

    def expects(self, node: str, number: int) -> bool:
        """Whether this node's answer for this round is still to come."""
        return self.collects(node, number) and node not in self.answers

    def handle(self, event: ev.Event) -> list[ev.Action]:
        """Take one event; returns what is to be done, in order. Unknown nodes and late messages change nothing."""
        self._actions = []
        if self.state != "done":
            self._now = max(self._now, getattr(event, "now", self._now))
            self._take(event)
            if self._started:
                self._advance()
        return self._actions

    # -- events ---------------------------------------------------------------------------------------------------

    def _take(self, event: ev.Event) -> None:
        match event:
            case ev.Started():
                self._start()
            case ev.NodeJoined(node=node):
                self._joined(node)
            case ev.NodeLost(node=node):
                if node in self._present:
                    self._present.discard(node)
                    self._away[node] = self._now
                    self._evaluating.discard(node)
            case ev.NodeRemoved(node=node):
                self._removed(node)
            case ev.UpdateStored(node=node, round=number):
                if self.collects(node, number) and self.answers.get(node) not in ("received", "rejected"):
                    self.answers[node] = "received"
                    self._stuck = False
            case ev.NodeAnswered(node=node, round=number, verdict=verdict, reason=reason):
                if self.expects(node, number):
                    self._answer(node, verdict, reason)
            case ev.TransferProgressed(node=node):
                self._progress[node] = self._now
            case ev.Aggregated(round=number) if self.state == "aggregating" and number == self.round:
                self._aggregated(event)
            case ev.AggregationFailed(round=number, reason=reason) if (
                self.state == "aggregating" and number == self.round
            ):
                self._finish("failed", f"round {number} cannot be aggregated: {reason}")
            case ev.RoundCommitted(round=number) if self.state == "committing" and number == self.round:
                self._round_committed()
            case ev.Evaluated(version=version):
                self._unevaluated.discard(version)
            case ev.NodeEvaluated(node=node):
                self._evaluating.discard(node)
            case ev.PauseChanged(paused=paused):
                self._paused = paused
            case ev.StopRequested(reason=reason):
                self._stop(reason)
            case ev.Tick() | _:
                pass

    def _start(self) -> None:
        self._started = True
        self._attempt_at = self._now
        for node in self.roster:
            if node not in self._present:
                self._away.setdefault(node, self._now)
        if self.round:  # in progress before the restart: whoever took part is expected back
            for node in self.invited:
                if node not in self._present:
                    self._away[node] = self._now
        for version in sorted(self._unevaluated):
            self._actions.append(ev.EvaluateCentrally(version))
        if self.state == "aggregating":
            if len(self._received()) >= self.policy.min_nodes:
                self._aggregate()
            else:  # the rule had refused, and its rejections were recorded before the crash
                self._reopen()

    def _joined(self, node: str) -> None:
        self._present.add(node)
        self._away.pop(node, None)
        if self._stuck:
            self._stuck, self._retries = False, -1  # an attempt with a new node is no retry
        if (
            self.state == "collecting"
            and node in self.invited
            and self.answers.get(node) not in ("received", "rejected")
        ):
            self.answers.pop(node, None)
            self._actions.append(ev.Assign(node, self.round, self.attempt))

    def _removed(self, node: str) -> None:
        self._present.discard(node)
        self._away.pop(node, None)
        self._evaluating.discard(node)
        self._stuck = False
        if self.collects(node, self.round):
            self._answer(node, "rejected", "evicted")

    def _aggregated(self, event: ev.Aggregated) -> None:
        if event.enough:
            self.state = "committing"
            self._actions.append(ev.Commit(self.round))
            return
        for node, reason in sorted(event.rejected.items()):
            self._answer(node, "rejected", reason)
        self._reopen()

    def _reopen(self) -> None:
        self.state = "collecting"
        self._retry("too few updates were left after the rule's rejections")
        if self._stuck:  # open again for updates that may still come
            self.attempt += 1
            self._actions.append(ev.OpenRound(self.round, self.attempt, self.invited, tuple(self.roster)))

    def _round_committed(self) -> None:
        self.committed = self.round
        self.round = self.attempt = self._retries = 0
        self.invited, self.answers, self._progress = (), {}, {}
        self.state = "idle"
        policy = self.policy
        last = self.committed >= policy.count
        due = policy.evaluate_every and (last or self.committed % policy.evaluate_every == 0)
        if due and policy.evaluate_centrally:
            self._unevaluated.add(self.committed)
        if not last:
            self._advance()  # invite for the next round before the evaluation is asked for
        if due and policy.evaluate_centrally:
            self._actions.append(ev.EvaluateCentrally(self.committed))

    def _stop(self, reason: str) -> None:
        for node in self._pending():
            self._actions.append(ev.Cancel(node, self.round, "the run was stopped"))
        self._finish("stopped", reason)

    # -- moving on ------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        self._lose_the_overdue()
        if self.state == "idle":
            if self.committed >= self.policy.count:
                self._begin_finishing()
            else:
                self._open_next()
        elif self.state == "collecting":
            self._try_to_close()
        if self.state == "finishing":
            self._try_to_finish()

    def _lose_the_overdue(self) -> None:
        for node, seen in list(self._away.items()):
            if self._now - seen >= self.policy.rejoin_s:
                del self._away[node]
                self._evaluating.discard(node)
                if self.state == "collecting" and node in self._pending():
                    self._stuck = False
                    self._answer(node, "lost", f"no connection for {self.policy.rejoin_s:g} s")

    def _open_next(self) -> None:
        if self._paused:
            self._report("paused by the operator")
            return
        eligible = self._eligible()
        if len(eligible) < self.policy.min_nodes or not self._present.intersection(eligible):
            self._report_short(eligible)
            return
        self.round, self._retries = self.committed + 1, 0
        self._open(1, self._draw(eligible, 1))

    def _open(self, attempt: int, invited: tuple[str, ...]) -> None:
        self.state, self.attempt, self.invited, self._attempt_at = "collecting", attempt, invited, self._now
        self._stuck = False
        self.answers = {n: v for n, v in self.answers.items() if v in ("received", "rejected") or n not in invited}
        self._report("")
        self._actions.append(ev.OpenRound(self.round, attempt, invited, tuple(self.roster)))
        for node in self._pending():
            if node in self._present:
                self._actions.append(ev.Assign(node, self.round, attempt))

    def _try_to_close(self) -> None:
        pending = self._pending()
        if pending and self._now < self._deadline():
            return
        received = self._received()
        if len(received) >= self._needed():
            for node in pending:
                self._answer(node, "lost", "no update before the deadline")
                self._cancel(node, "the round was closed")
            self._aggregate()
        elif not self._stuck:
            late = [node for node in pending if node not in self._present]
            for node in late:
                self._answer(node, "lost", "no update before the deadline")
            self._retry(f"{len(received)} of {self._needed()} updates" + (" at the deadline" if pending else ""))
            if self.state == "collecting" and not self._stuck and not self._pending():
                self._try_to_close()

    def _retry(self, why: str) -> None:
        refused = {node for node, verdict in self.answers.items() if verdict in ("declined", "rejected", "lost")}
        received, eligible = self._received(), set(self._eligible()) - refused
        candidates = [node for node in self.roster if node in received or node in eligible]
        complete = len(candidates) == len(received)
        fresh = set(candidates) - set(self.invited) - set(self.answers)  # an attempt with a new node is no retry
        free = complete or bool(fresh)
        if len(candidates) >= self.policy.min_nodes and (free or self._retries < self.policy.max_retries):
            self._retries += not free
            self._open(self.attempt + 1, self._redraw(candidates))
        elif self.policy.fail_when_short:
            self._finish("failed", f"round {self.round}: {why} after {self.attempt} attempts")
        else:
            self._stuck = True
            self._report(f"round {self.round}: {why}; waiting for more nodes")

    def _aggregate(self) -> None:
        self.state = "aggregating"
        self._report("")
        self._actions.append(ev.Aggregate(self.round, tuple(self._received())))

    def _begin_finishing(self) -> None:
        self.state = "finishing"
        self._report("")
        if self.policy.evaluate_on_nodes and self.policy.evaluate_every and self.committed:
            self._evaluating = {node for node in self.roster if node in self._present}
            self._evaluation_until = self._now + self.policy.deadline_s
            self._actions.extend(ev.AssignEvaluation(node, self.committed) for node in sorted(self._evaluating))

    def _try_to_finish(self) -> None:
        if self._now >= self._evaluation_until:
            self._evaluating.clear()
        if not self._unevaluated and not self._evaluating:
            self._finish("completed", "")

    def _finish(self, state: RunState, reason: str) -> None:
        self.state = "done"
        self._actions.append(ev.FinishRun(state, reason))

    # -- small questions ------------------------------------------------------------------------------------------

    def _pending(self) -> list[str]:
        return [node for node in self.invited if node not in self.answers] if self.round else []

    def _received(self) -> list[str]:
        return [node for node in self.roster if self.answers.get(node) == "received"]

    def _needed(self) -> int:
        return max(self.policy.min_nodes, math.ceil(self.policy.quorum * len(self.invited)))

    def _deadline(self) -> float:
        soft = self._attempt_at + self.policy.deadline_s
        hard = self._attempt_at + self.policy.hard_deadline_s
        moving = [self._progress[node] for node in self._pending() if node in self._progress]
        return min(hard, max([soft, *(at + self.policy.progress_s for at in moving)]))

    def _eligible(self) -> list[str]:
        for node in sorted((self._present | set(self._away)) - set(self.roster)):
            self.roster.append(node)
        return [node for node in self.roster if node in self._present or node in self._away]

    def _draw(self, eligible: list[str], attempt: int) -> tuple[str, ...]:
        wanted = self.policy.participants
        number = math.ceil(wanted * len(eligible)) if isinstance(wanted, float) else min(wanted, len(eligible))
        number = max(number, min(self.policy.min_nodes, len(eligible)))
        if number == len(eligible):
            return tuple(eligible)
        rng = random.Random(derive_seed(self.policy.seed, "participants", self.round, attempt))
        chosen = set(rng.sample(eligible, number))
        return tuple(node for node in eligible if node in chosen)

    def _redraw(self, eligible: list[str]) -> tuple[str, ...]:
        """Those whose updates are kept, filled up with others to the wanted number."""
        drawn = self._draw(eligible, self.attempt + 1)
        kept = self._received()
        others = [node for node in drawn if node not in kept]
        chosen = set(kept) | set(others[: max(0, len(drawn) - len(kept))])
        return tuple(node for node in self.roster if node in chosen)

    # -- recording ------------------------------------------------------------------------------------------------

    def _answer(self, node: str, verdict: Verdict, reason: str) -> None:
        self.answers[node] = verdict
        self._actions.append(ev.RecordOutcome(node, self.round, verdict, reason))

    def _cancel(self, node: str, reason: str) -> None:
        if node in self._present:
            self._actions.append(ev.Cancel(node, self.round, reason))

    def _report(self, reason: str) -> None:
        if reason != self._reason:
            self._reason = reason
            self._actions.append(ev.Report(reason))

    def _report_short(self, eligible: list[str]) -> None:
        away = sum(node not in self._present for node in eligible)
        text = f"round {self.committed + 1} needs {self.policy.min_nodes} nodes; {len(eligible) - away} connected"
        self._report(text + (f", {away} expected back" if away else ""))
