"""A step by a rule: from base and a round's updates to the next version, in one walk over the columns."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from covey import faults
from covey.aggregation.buffers import combine_buffers
from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator
from covey.aggregation.matrix import Row, UpdateMatrix
from covey.aggregation.server_optimizers import ServerOptimizer
from covey.aggregation.verdicts import Verdict, word_for
from covey.aggregation.weights import effective_shares
from covey.codecs.contract import Codec, CodecContext
from covey.errors import RunFailed
from covey.learning.models.state import ModelFile
from covey.methods.contract import Answer, Close, Part
from covey.metrics import Totals
from covey.parts import slot
from covey.seeds import derive_seed
from covey.worker.execute.from_spec import change_codec, load_aggregator, load_fallback, load_server_optimizer
from covey.worker.execute.next_version import AGGREGATOR, BROADCAST, copy_version
from covey.worker.execute.privacy_metrics import spent_metrics
from covey.worker.execute.root_dataset import Root
from covey.worker.execute.steps.central_noise import noised
from covey.worker.execute.steps.finish_round import finish_context, threads
from covey.worker.execute.steps.open_step import OpenStep
from covey.worker.execute.steps.plan_round import Planner
from covey.worker.execute.updates.update_form import layout_of
from covey.worker.execute.updates.validate_updates import admit
from covey.worker.files.mapped import FLOAT32_BYTES, dtype_of, map_float32
from covey.worker.files.updates import write_flat
from covey.worker.files.writing import ArtifactWriter
from covey.worker.jobs.files import WrittenFile
from covey.worker.jobs.steps import OpenedPhase, StepAnswer, StepResult, updates_of


class RuleStep:
    """A round that is being aggregated.

    Args:
        step: Its job, opened.

    Raises:
        LayoutError: A state file is not of the layout.
        RunFailed: The method is mistaken in what follows from the answers.
    """

    def __init__(self, step: OpenStep) -> None:
        self._step, self._job, self._spec, self._form = step, step.job, step.spec, step.form
        self._codec: Codec = self._form.codec
        self._verdicts: dict[str, Verdict] = {}
        self._opens: OpenedPhase | None = None
        """A further phase, which the method wants first."""
        self._closed: Close | None = None
        self._answers: tuple[Answer, ...] = ()
        self._sent = updates_of(self._job)
        self._rows, broken = admit(self._planned(), self._form, step.base)
        self._verdicts |= broken
        self._rule_name = ""
        self._metrics: Mapping[str, Totals] = {}
        """What the method measured."""
        self._main = load_aggregator(self._spec)
        section, fallback = self._spec.aggregation, load_fallback(self._spec)
        named = [(section.name, self._main)]
        if section.fallback is not None and fallback is not None:
            named.append((section.fallback.name, fallback))
        self._rules = [(name, rule) for name, rule in named if len(self._rows) >= max(1, rule.min_updates())]
        """The run's rule and its fallback, as far as there are enough updates for them."""

    def result(self) -> StepResult:
        """The next version; or too few updates are left for the rule; or the method opens a phase.

        Raises:
            LayoutError: A state file is not of the layout.
            RunFailed: The rule refuses these updates.
        """
        if self._opens is not None:
            return StepResult((), opens=self._opens)
        if not self._rules:
            return StepResult(self._all_verdicts(), enough=False)
        model, state = self._make()
        return StepResult(
            self._all_verdicts(),
            artifact=model.artifact,
            model_sha256=model.model_sha256,
            state=state,
            rule=self._rule_name,
            metrics={**self._metrics, **spent_metrics(self._spec, self._codec, self._step.number)},
        )

    def _all_verdicts(self) -> tuple[Verdict, ...]:
        return tuple(self._verdicts.get(row.node) or Verdict(row.node, "accepted") for row in self._sent)

    def _planned(self) -> Sequence[StepAnswer]:
        """The updates that are to be aggregated: all, unless the method has phases and says which."""
        if self._form.method.phases == 1:
            return self._sent
        planner = Planner(self._step, self._sent)
        plan = planner.plan()
        if isinstance(plan, OpenedPhase):
            self._opens = plan
            return ()
        self._closed, self._answers = plan, planner.answers
        left_out = [row.node for row in self._sent if row.node not in plan.nodes]
        self._verdicts = {
            node: Verdict(node, word_for(node not in plan.rejected), plan.rejected.get(node, "")) for node in left_out
        }
        return [row for row in self._sent if row.node in plan.nodes]

    def _make(self) -> tuple[ModelFile, tuple[WrittenFile, ...]]:
        """Apply the first rule that does not refuse, and write the next version with its state."""
        if not self._form.has_rule:
            return self._make_without_model()
        optimizer = load_server_optimizer(self._spec)
        rule, result = self._apply_or_fall_back(optimizer)
        self._verdicts |= {verdict.node: verdict for verdict in result.verdicts}
        combined = {part.name: self._combined(part, "median" if rule.robust else "mean") for part in self._form.tensors}
        buffers = combined.get(self._form.buffers.name) if self._form.buffers else None
        optimizer.begin(self._step.number)
        model, state = self._step.make(
            result.direction,
            self._step.base.raw_buffers if buffers is None else buffers,
            optimizer,
            result.state,
            self._change(optimizer),
        )
        state += (*self._unused_state({file.name for file in state}), *self._broadcast())
        return model, (*state, *self._method_state(combined))

    def _make_without_model(self) -> tuple[ModelFile, tuple[WrittenFile, ...]]:
        """The base again; every update counts, and what is combined is so by the mean."""
        weights, self._rule_name = self._spec.weights, self._spec.aggregation.name
        shares = effective_shares([row.weight for row in self._rows], weights.by, weights.max_share)
        for row, share in zip(self._rows, shares.tolist(), strict=True):
            self._verdicts[row.node] = Verdict(row.node, "accepted", share=share)
        combined = {part.name: self._combined(part, "mean") for part in self._form.tensors}
        model = copy_version(self._job.out, self._step.layout, self._step.base)
        return model, tuple(self._method_state(combined))

    def _apply_or_fall_back(self, optimizer: ServerOptimizer) -> tuple[Aggregator, Aggregate]:
        *earlier, last = self._rules
        for self._rule_name, rule in earlier:
            with contextlib.suppress(RunFailed):
                return rule, self._apply(rule, optimizer)
        self._rule_name, rule = last
        return rule, self._apply(rule, optimizer)

    def _apply(self, rule: Aggregator, optimizer: ServerOptimizer) -> Aggregate:
        spec, job = self._spec, self._job
        shares = effective_shares([row.weight for row in self._rows], spec.weights.by, spec.weights.max_share)
        terms = [Row(row.node, share, row.reader) for row, share in zip(self._rows, shares.tolist(), strict=True)]
        root = None
        if rule.needs_root:
            root = Root(self._step.run, self._step.layout, self._step.base, self._step.number)
        context = AggregationContext(
            self._step.number,
            spec.seed,
            root=root,
            roster=job.roster,
            learning_rate=float(getattr(optimizer.options, "learning_rate", 1.0)),
            losses={row.node: row.loss for row in self._sent if row.loss is not None},
        )
        matrix = UpdateMatrix(terms, self._form.rule.layout)
        result = rule.aggregate(matrix, self._state_of(rule), context)
        if spec.privacy is not None and spec.privacy.unit == "node":
            result = noised(result, shares.max().item(), len(self._sent), spec, self._step.number)
        if set(result.state) != set(rule.state_names):
            raise RunFailed(
                f"aggregator {self._rule_name!r} gave back the state {sorted(result.state)}, and says that it keeps "
                f"{sorted(rule.state_names)}"
            )
        return result

    def _state_of(self, rule: Aggregator) -> Mapping[str, Tensor]:
        files = {}
        for name in rule.state_names:
            path = self._job.state.get(AGGREGATOR + name)
            if path is not None and (size := path.stat().st_size):
                files[name] = map_float32(path, size // FLOAT32_BYTES)
        return files

    def _combined(self, part: Part, how: Literal["mean", "median"]) -> Tensor | None:
        """A part of all accepted updates as one, raw; None: none of them weighs in."""
        used = [row for row in self._rows if self._verdicts[row.node].accepted]
        shares = torch.tensor([self._verdicts[row.node].share for row in used], dtype=torch.float64)
        if not used or not shares.sum() > 0:
            return None
        rows, base = [row.tensors[part.name] for row in used], self._step.base.raw_buffers if part.in_model else None
        return combine_buffers(layout_of(part), rows, shares / shares.sum(), how, base)

    def _method_state(self, combined: Mapping[str, Tensor | None]) -> list[WrittenFile]:
        """What the method keeps with the version."""
        form = self._form
        flat = {
            part.name: raw.view(dtype_of(layout_of(part)))
            for part in form.tensors
            if not part.in_model and (raw := combined[part.name]) is not None
        }
        used = [row for row in self._rows if self._verdicts[row.node].accepted]
        accepted = [(row, self._verdicts[row.node].share) for row in used]
        context = finish_context(self._step, accepted, self._closed, self._answers)
        with threads(self._spec.training.threads):
            outcome = form.method.finish(flat, form.state(self._job.state), context)
        faults.reach("method-finish")
        self._metrics, state = outcome.metrics, outcome.state
        if set(state) != {part.name for part in form.kept}:
            kept = sorted(part.name for part in form.kept)
            raise RunFailed(f"method {self._spec.method.name!r} made the state {sorted(state)}, and declares {kept}")
        return [self._kept(part, state[part.name]) for part in form.kept]

    def _kept(self, part: Part, values: Tensor) -> WrittenFile:
        name = slot(part.name)
        path = self._job.out_state[name]
        return WrittenFile(name, path, write_flat(path, layout_of(part), values))

    def _change(self, optimizer: ServerOptimizer) -> tuple[Codec, CodecContext] | None:
        codec = change_codec(self._spec, self._codec, self._main, optimizer)
        return None if codec is None else (codec, self._coding("change"))

    def _coding(self, purpose: str) -> CodecContext:
        number, spec = self._step.number, self._spec
        seed = derive_seed(spec.seed, purpose, number)
        return CodecContext(seed, number, spec.rounds_in_all, self._form.rule.layout, broadcast_of(self._job.state))

    def _broadcast(self) -> tuple[WrittenFile, ...]:
        if BROADCAST not in self._job.out_state:
            return ()
        text = self._codec.summary([row.reader for row in self._rows], self._coding("summary"))
        return (_written(BROADCAST, self._job.out_state[BROADCAST], text),)

    def _unused_state(self, written: set[str]) -> list[WrittenFile]:
        """What the run's rule keeps goes on unchanged through a round of its fallback."""
        left = [name for name in map(AGGREGATOR.__add__, self._main.state_names) if name not in written]
        old = self._job.state
        return [
            _written(name, self._job.out_state[name], old[name].read_bytes() if name in old else b"") for name in left
        ]


def broadcast_of(state: Mapping[str, Path]) -> bytes:
    """What the codec said of the last round; empty in the first."""
    return state[BROADCAST].read_bytes() if BROADCAST in state else b""


def _written(name: str, path: Path, content: bytes) -> WrittenFile:
    with ArtifactWriter(path) as writer:
        writer.write(memoryview(content))
        return WrittenFile(name, path, writer.close())
