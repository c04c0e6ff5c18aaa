"""The round machine: synchronous rounds as a pure state machine, `handle(event) -> list[Action]`.

It does no I/O and has no clock: events carry the time, and the caller sends a `Tick` at `wake_at`. What it needs after
a crash is in the store, because the caller executes actions in order and makes `OpenRound`, `RecordOutcome`,
`Aggregate` and `Commit` durable before it goes on; `Restored` brings it back.

A run's round goes  (idle) -> collecting -> aggregating -> committed -> (idle of the next round), and from aggregating
back to collecting where the run's method opens a further phase: then the nodes that it names are asked once more.
It closes when every invited node has answered (update, rejection, decline, loss); else at `deadline_s`, which uploads
that make progress, and nodes that work for another run first, extend up to `hard_deadline_s`. With fewer than
max(min_nodes, ceil(quorum x invited)) updates it is tried again with the nodes that are there, keeping every update it
has; after `max_retries` it waits, or fails the run. So it is, with the same nodes, where updates were lost on the
coordinator. A later phase closes when all that were asked have answered or are lost, with however many updates: the
method decides what follows. A round that it leaves short is tried again from phase 1, where all that came then still
counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from covey.coordinator.modes.rounds import events as ev
from covey.coordinator.modes.rounds.deadline import Deadline
from covey.coordinator.modes.rounds.drawing import drawn, drawn_again, quorum_of
from covey.coordinator.modes.rounds.open_round import OpenRound
from covey.coordinator.modes.rounds.waiting import failed_text, lost_text, refusals_of, short_text, stuck_text
from covey.machines import protocol as pr
from covey.machines.evaluation import Evaluations
from covey.machines.shortage import have_a_part_now
from covey.machines.stopping import Stopping
from covey.texts import number_of


class RoundMachine(OpenRound):
    """One run in `rounds` mode.

    Args:
        policy: The numbers it goes by.
        roster: Node ids in order, fixed at the run's start; nodes that come later are appended.
        expected: Nodes not connected now but recently seen, with the time they were last seen.
        restored: The store's knowledge of a run in progress.
    """

    _has_place = True
    """Of the class, as event logs of older versions open with machines that do not have it."""

    def __init__(
        self,
        policy: ev.RoundPolicy,
        roster: Iterable[str],
        expected: Mapping[str, float] | None = None,
        restored: ev.Restored | None = None,
    ) -> None:
        restored = restored or ev.Restored()
        super().__init__(policy, roster, expected, restored)
        self._evaluations = Evaluations(restored.unevaluated)
        self._stopping = Stopping(policy.stop, restored.values, restored.sent_bytes)
        self._deadline = Deadline(policy)
        self._retries = 0
        self._stuck = False
        self._paused = False
        self._started = False
        self._why_stop = ""
        self._now = 0.0

    # -- the outside ----------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether the run is in a terminal state."""
        return self.state == "done"

    @property
    def wake_at(self) -> float | None:
        """When the machine wants a `Tick` at the latest; None: only an event can move it."""
        times = self.members.give_up_times(self.policy.rejoin_s)
        if self.state == "collecting" and not self._stuck:
            times.append(self._deadline.at(self._pending()))
        if self.state == "finishing":
            times += self._evaluations.wake_times()
        if self.state == "idle" or (self.state == "collecting" and self._stuck):
            times += self._stopping.wake_times()
        return max(self._now, min(times)) if times else None

    def handle(self, event: ev.RoundEvent) -> list[ev.RoundAction]:
        """Take one event; returns what is to be done, in order. Unknown nodes and late messages change nothing."""
        self._actions = []
        if self.state != "done":
            self._now = max(self._now, getattr(event, "now", self._now))
            self._take(event)
            if self._started:
                self._advance()
        return self._actions

    # -- events ---------------------------------------------------------------------------------------------------

    def _take(self, event: ev.RoundEvent) -> None:
        match event:
            case pr.Started():
                self._start()
            case pr.NodeJoined(node=node):
                self._joined(node)
            case pr.NodeLost(node=node):
                if self.members.leave(node, self._now):
                    self._evaluations.answered(node)
            case pr.NodeRemoved(node=node):
                self._removed(node)
            case pr.UpdateStored(node=node, round=number, phase=self.phase):
                if self.collects(node, number) and self._answers.get(node) not in ("received", "rejected"):
                    self._answers[node] = "received"
                    self._stuck = False
            case pr.NodeAnswered(node=node, round=number, verdict=verdict, reason=reason, phase=self.phase):
                if self.expects(node, number):
                    self._answer(node, verdict, reason)
            case pr.TransferProgressed(node=node, now=now):
                self._deadline.progressed(node, now)
            case pr.NodeQueued(node=node):
                self._deadline.queued(node, self._now)
                self._evaluations.queued(node, self._now)
            case ev.PhasePlanned(round=number) if self.state == "aggregating" and number == self.round:
                self._open_phase(event)
            case ev.Aggregated(round=number) if self.state == "aggregating" and number == self.round:
                self._aggregated(event)
            case ev.AggregationFailed(round=number, reason=reason) if (
                self.state == "aggregating" and number == self.round
            ):
                self._finish("failed", f"round {number} cannot be aggregated: {reason}")
            case ev.UpdatesLost(round=number, nodes=lost) if self.state == "aggregating" and number == self.round:
                self._ask_again(lost)
            case ev.RoundCommitted(round=number) if self.state == "committing" and number == self.round:
                self._stopping.sent(event.sent_bytes)
                self._stopping.measured(number - 1, event.value)
                self._round_committed()
            case pr.Evaluated(version=version, value=value):
                self._evaluations.evaluated(version)
                self._stopping.measured(version, value)
            case pr.NodeEvaluated(node=node):
                self._evaluations.answered(node)
            case pr.PauseChanged(paused=paused):
                self._paused = paused
            case pr.PlaceChanged(has_place=has_place):
                self._has_place = has_place
            case pr.StopRequested(reason=reason):
                self._stop(reason)
            case pr.Tick() | _:
                pass

    def _start(self) -> None:
        self._started = True
        self._deadline.begin(self._now)
        # In progress before the restart: whoever took part is expected back.
        self.members.start(self._now, at_work=self.invited if self.round else ())
        self._actions += self._evaluations.start()
        if self.phase > 1 and not set(self.invited) <= set(self.answers):
            self._ask_again(())  # what a node sent in phase 1 was lost
        elif self.state == "aggregating":
            if self.phase > 1 or len(self._received()) >= self.policy.min_nodes:
                self._aggregate()
            else:  # the rule had refused, and its rejections were recorded before the crash
                self._reopen()

    def _joined(self, node: str) -> None:
        self.members.join(node)
        if self._stuck:
            self._stuck, self._retries = False, -1  # an attempt with a new node is no retry
            if self.phase == 1 and self.answers.get(node) in pr.NO_UPDATE:  # perhaps its cause is mended
                del self.answers[node]
        if (
            self.state == "collecting"
            and node in self.asked
            and self._answers.get(node) not in ("received", "rejected")
        ):
            self._answers.pop(node, None)
            self._actions.append(ev.Assign(node, self.round, self.attempt))

    def _removed(self, node: str) -> None:
        self.members.remove(node)
        self._evaluations.answered(node)
        self._stuck = False
        if self.collects(node, self.round) or (self.phase > 1 and self.state == "collecting" and node in self.invited):
            self._answer(node, "rejected", "evicted")

    def _aggregated(self, event: ev.Aggregated) -> None:
        if event.enough:
            self.state = "committing"
            self._actions.append(ev.Commit(self.round))
            return
        for node, reason in sorted(event.rejected.items()):
            self._answer(node, "rejected", reason)
        self._reopen()

    def _open_phase(self, event: ev.PhasePlanned) -> None:
        rejected = {**dict.fromkeys(self._evicted(), "evicted"), **event.rejected}
        self._actions.append(ev.OpenPhase(self.round, self.phase, event.phase, event.params, rejected))
        self.answers |= dict.fromkeys(rejected, "rejected")
        self.state, self.phase, self._asked, self._phase_answers = "collecting", event.phase, tuple(event.params), {}
        self._deadline.begin(self._now)
        self._stuck = False
        self._lose_the_gone()
        self._assign_pending()

    def _lose_the_gone(self) -> None:
        """Who was given up or evicted since it answered an earlier phase is not waited for."""
        for node in self._pending():
            if (why_gone := self.members.why_gone(node)) == "removed":
                self._answer(node, "rejected", "evicted")
            elif why_gone:
                self._answer(node, "lost", f"no connection for {self.policy.rejoin_s:g} s")

    def _begin_anew(self) -> None:
        """Collecting again, from phase 1."""
        self.state, self.phase, self._asked, self._phase_answers = "collecting", 1, (), {}
        for node in self._evicted():
            self._answer(node, "rejected", "evicted")

    def _ask_again(self, lost: Iterable[str]) -> None:
        """The next attempt, with the same nodes: a coordinator that lost what it had promised commits on no less."""
        self.answers = {node: verdict for node, verdict in self.answers.items() if node not in lost}
        if self._retries >= max(1, self.policy.max_retries):
            self._finish("failed", lost_text(self.round, self.attempt))
            return
        self._retries += 1
        self._begin_anew()
        self._open(self.attempt + 1, self.invited)
        self._lose_the_gone()

    def _reopen(self) -> None:
        self._begin_anew()
        # Where the method decides, all that came may be the same as before: each try counts.
        self._retry("too few updates were left after the rule's rejections", is_free=self.policy.phases == 1)
        if self._stuck:  # open again for updates that may still come
            self.attempt += 1
            self._actions.append(ev.OpenRound(self.round, self.attempt, self.invited, tuple(self.members.roster)))

    def _round_committed(self) -> None:
        self.committed = self.round
        self.attendance.committed(self.round, self.answers)
        self.round = self.attempt = self._retries = 0
        self.invited, self.answers, self._reasons = (), {}, {}
        self._deadline.forget()
        self.phase, self._asked, self._phase_answers = 1, (), {}
        self.state = "idle"
        last = self.committed >= self.policy.count or bool(self._stopping.why(self._now))
        evaluations = self._evaluations.committed(self.policy, self.committed, last=last)
        if not last:
            self._advance()  # invite for the next round before the evaluation is asked for
        self._actions += evaluations

    def _stop(self, reason: str) -> None:
        for node in self._pending():
            self._actions.append(pr.Cancel(node, self.round, "the run was stopped"))
        self._finish("stopped", reason)

    # -- moving on ------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        self._lose_the_overdue()
        if self.state == "idle":
            if self.committed >= self.policy.count or self._stopping.why(self._now):
                self._begin_finishing()
            elif not (self.policy.stop.by_metric and self._evaluations.unevaluated):
                self._open_next()  # else what is known of the newest version may end the run
        elif self.state == "collecting":
            self._try_to_close()
            if self._stuck and self._stopping.why(self._now):
                self._give_up_the_round()
        if self.state == "finishing" and self._evaluations.all_done(self._now):
            self._finish("completed", self.policy.why_last if self.committed >= self.policy.count else self._why_stop)

    def _give_up_the_round(self) -> None:
        """The run's time is up while a round waits for nodes, perhaps for ever."""
        for node in self._pending():
            self._cancel(node, "the run ends")
        self._stuck = False
        self._begin_finishing()

    def _lose_the_overdue(self) -> None:
        for node in self.members.give_up(self._now, self.policy.rejoin_s):
            if self.state == "collecting" and node in self._pending():
                self._stuck = False
                self._answer(node, "lost", f"no connection for {self.policy.rejoin_s:g} s")

    def _open_next(self) -> None:
        if self._paused:
            self._report("paused by the operator")
            return
        eligible = self._eligible()
        if len(eligible) < self.policy.min_nodes or not self.members.present.intersection(eligible):
            self._report(short_text(self.committed + 1, self.policy.min_nodes, eligible, self.members.present))
            return
        if not self._has_place:
            self._report(pr.NO_PLACE)
            return
        self.round, self._retries = self.committed + 1, 0
        self._open(
            1, drawn(self.policy, self.attendance.willing(eligible, self.round, self.policy.min_nodes), self.round, 1)
        )

    def _open(self, attempt: int, invited: tuple[str, ...]) -> None:
        self.state, self.attempt, self.invited = "collecting", attempt, invited
        self._deadline.begin(self._now)
        self._stuck = False
        self.answers = {n: v for n, v in self.answers.items() if v in ("received", "rejected") or n not in invited}
        self._report("")
        self._actions.append(ev.OpenRound(self.round, attempt, invited, tuple(self.members.roster)))
        self._assign_pending()

    def _assign_pending(self) -> None:
        for node in self._pending():
            if node in self.members.present:
                self._actions.append(ev.Assign(node, self.round, self.attempt))

    def _try_to_close(self) -> None:
        pending = self._pending()
        if pending and self._now < self._deadline.at(pending):
            return
        if self._stuck and self.policy.phases > 1:  # what came in phase 1 is enough, and led to nothing
            return
        received, needed = self._received(), quorum_of(self.policy, len(self.invited))
        if self.phase > 1 or len(received) >= needed:
            for node in pending:
                self._answer(node, *self._overdue(node))
                self._cancel(node, "the round was closed")
            self._aggregate()
        elif not self._stuck:
            late = [node for node in pending if node not in self.members.present]
            for node in late:
                self._answer(node, *self._overdue(node))
            self._retry(f"{len(received)} of {number_of(needed, 'update')}" + (" at the deadline" if pending else ""))
            if self.state == "collecting" and not self._stuck and not self._pending():
                self._try_to_close()

    def _retry(self, why: str, *, is_free: bool = True) -> None:
        refused = refusals_of(self.answers, self._reasons)
        able_now = have_a_part_now(refused, self.invited)
        able = [node for node in self._eligible() if node not in refused or node in able_now]
        received, eligible = self._received(), set(self.attendance.willing(able, self.round, self.policy.min_nodes))
        candidates = [node for node in self.members.roster if node in received or node in eligible]
        complete = len(candidates) == len(received)
        # An attempt with a node that is new, or can do the work only now, is no retry.
        fresh = set(candidates) - set(self.invited) - set(self.answers) | able_now.intersection(candidates)
        free = is_free and (complete or bool(fresh))
        if len(candidates) >= self.policy.min_nodes and (free or self._retries < self.policy.max_retries):
            self._retries += not free
            chosen = drawn_again(self.policy, candidates, self.round, self.attempt + 1, received)
            self._open(self.attempt + 1, tuple(node for node in self.members.roster if node in chosen))
        elif self.policy.fail_when_short:
            self._fail_short(why)
        else:
            self._stuck = True
            self._report(stuck_text(self.round, why, self._pending(), received, refused))

    def _fail_short(self, why: str) -> None:
        for node in self._pending():
            self._answer(node, *self._overdue(node))
            self._cancel(node, "the run has failed")
        refused = refusals_of(self.answers, self._reasons)
        self._finish("failed", failed_text(self.round, self.attempt, why, refused))

    def _aggregate(self) -> None:
        self.state = "aggregating"
        self._report("")
        self._actions.append(ev.Aggregate(self.round, tuple(self._received())))

    def _begin_finishing(self) -> None:
        self.state, self._why_stop = "finishing", self._stopping.why(self._now)
        self._report("")
        self._actions += self._evaluations.ended_early(self.policy, self.committed) if self._why_stop else []
        willing = self.attendance.willing(self.members.connected(), self.committed, 0)
        asked = self._evaluations.ask_nodes(self.policy, self.committed, willing, self._now)
        self._actions += asked

    def _finish(self, state: pr.RunState, reason: str) -> None:
        self.state = "done"
        self._actions.append(pr.FinishRun(state, reason))
