"""Aggregating a round: from base and updates to the next version, in one walk over the columns."""

from __future__ import annotations

import contextlib
import time
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
from covey.aggregation.weights import effective_shares
from covey.codecs.contract import Codec, CodecContext
from covey.errors import RunFailed
from covey.layout import Layout
from covey.learning.state import ModelFile
from covey.methods.contract import FinishContext, Part
from covey.parts import slot
from covey.seeds import derive_seed
from covey.spec import parse_json
from covey.worker.execute.from_spec import change_codec, load_aggregator, load_fallback, load_server_optimizer
from covey.worker.execute.next_version import AGGREGATOR, BROADCAST, Step, StepFiles, copy_version, make_version
from covey.worker.execute.plan_round import Planner
from covey.worker.execute.privacy_metrics import spent_metrics
from covey.worker.execute.root_dataset import Root
from covey.worker.execute.update_form import UpdateForm, layout_of
from covey.worker.execute.validate_updates import admit
from covey.worker.files.mapped import FLOAT32_BYTES, MappedModel, dtype_of, map_float32
from covey.worker.files.updates import write_flat
from covey.worker.files.writing import ArtifactWriter
from covey.worker.jobs.aggregation import AggregateJob, AggregateResult, AggregateRow, OpenedPhase, RowVerdict
from covey.worker.jobs.files import WrittenFile
from covey.worker.program.host import Host


def aggregate(job: AggregateJob, host: Host) -> AggregateResult:
    """Make the next version.

    Raises:
        LayoutError: The base or a state file is not of the layout.
        RunFailed: The rule refuses these updates.
    """
    began = time.monotonic()
    torch.set_num_threads(1)  # an evaluation may have set another number, on which sums depend
    made: ModelFile | None = None
    state: tuple[WrittenFile, ...] = ()
    round_ = _Round(job, host)
    if round_.opens is not None:
        return AggregateResult(enough=True, verdicts=(), seconds=time.monotonic() - began, opens=round_.opens)
    enough = bool(round_.rules)
    if enough:
        made, state = round_.make()
    verdicts = round_.verdicts
    return AggregateResult(
        enough=enough,
        verdicts=tuple(verdicts.get(row.node) or RowVerdict(row.node, True, "", 0.0, {}) for row in job.rows),
        artifact=made.artifact if made else None,
        model_sha256=made.model_sha256 if made else "",
        state=state,
        seconds=time.monotonic() - began,
        rule=round_.rule_name,
        metrics=spent_metrics(round_.codec, job.round) if enough else {},
    )


class _Round:
    """One round that is being aggregated."""

    def __init__(self, job: AggregateJob, host: Host) -> None:
        self.job, self.spec, self.layout = job, parse_json(job.spec_json), Layout.from_json(job.layout)
        self._host = host
        self.base = MappedModel(job.base, self.layout)
        self.form = UpdateForm(self.spec, self.layout)
        self.codec: Codec = self.form.codec
        self.verdicts: dict[str, RowVerdict] = {}
        self.opens: OpenedPhase | None = None
        """A further phase, which the method wants first."""
        self.rows, broken = admit(self._planned_rows(), self.form, self.base)
        self.verdicts |= broken
        self.rule_name = ""
        self._main = load_aggregator(self.spec)
        section, fallback = self.spec.aggregation, load_fallback(self.spec)
        named = [(section.name, self._main)]
        if section.fallback is not None and fallback is not None:
            named.append((section.fallback.name, fallback))
        self.rules = [(name, rule) for name, rule in named if len(self.rows) >= max(1, rule.min_updates())]
        """The run's rule and its fallback, as far as there are enough updates for them."""

    def _planned_rows(self) -> Sequence[AggregateRow]:
        """The updates that are to be aggregated: all, unless the method has phases and says which."""
        if self.form.method.phases == 1:
            return self.job.rows
        plan = Planner(self.job, self.form, self.base, self._host).plan()
        if isinstance(plan, OpenedPhase):
            self.opens = plan
            return ()
        left_out = [row.node for row in self.job.rows if row.node not in plan.nodes]
        self.verdicts = {
            node: RowVerdict(node, node not in plan.rejected, plan.rejected.get(node, ""), 0.0, {}) for node in left_out
        }
        return [row for row in self.job.rows if row.node in plan.nodes]

    def make(self) -> tuple[ModelFile, tuple[WrittenFile, ...]]:
        """Apply the first rule that does not refuse, and write the next version with its state."""
        job, spec = self.job, self.spec
        if not self.form.has_rule:
            return self._make_without_model()
        optimizer = load_server_optimizer(spec)
        rule, result = self._apply_or_fall_back(optimizer)
        self.verdicts |= {
            v.node: RowVerdict(v.node, v.accepted, v.reason, v.weight, dict(v.numbers)) for v in result.verdicts
        }
        combined = {part.name: self._combined(part, "median" if rule.robust else "mean") for part in self.form.tensors}
        buffers = combined.get(self.form.buffers.name) if self.form.buffers else None
        optimizer.begin(job.round)
        step = Step(
            number=job.round,
            direction=result.direction,
            sign=-1.0 if spec.exchange.payload == "gradient" else 1.0,
            buffers=self.base.raw_buffers if buffers is None else buffers,
            optimizer=optimizer,
            kept=result.state,
            change=self._change(optimizer),
        )

        def each_block() -> None:
            faults.reach("aggregate-block")
            self._host.check_cancelled()

        files = StepFiles(job.state, job.out, job.out_state)
        made, state = make_version(files, self.layout, self.base, step, each_block)
        state += (*self._unused_state({one.name for one in state}), *self._broadcast(), *self._method_state(combined))
        return made, state

    def _make_without_model(self) -> tuple[ModelFile, tuple[WrittenFile, ...]]:
        """The base again; every update counts, and what is combined is so by the mean."""
        weights, self.rule_name = self.spec.weights, self.spec.aggregation.name
        shares = effective_shares([row.weight for row in self.rows], weights.by, weights.max_share)
        for row, share in zip(self.rows, shares.tolist(), strict=True):
            self.verdicts[row.node] = RowVerdict(row.node, True, "", share, {})
        combined = {part.name: self._combined(part, "mean") for part in self.form.tensors}
        return copy_version(self.job.out, self.layout, self.base), tuple(self._method_state(combined))

    def _apply_or_fall_back(self, optimizer: ServerOptimizer) -> tuple[Aggregator, Aggregate]:
        *earlier, last = self.rules
        for self.rule_name, rule in earlier:
            with contextlib.suppress(RunFailed):
                return rule, self._apply(rule, optimizer)
        self.rule_name, rule = last
        return rule, self._apply(rule, optimizer)

    def _apply(self, rule: Aggregator, optimizer: ServerOptimizer) -> Aggregate:
        spec, job = self.spec, self.job
        shares = effective_shares([row.weight for row in self.rows], spec.weights.by, spec.weights.max_share)
        terms = [Row(row.node, share, row.reader) for row, share in zip(self.rows, shares.tolist(), strict=True)]
        root = None
        if rule.needs_root:
            run = self._host.contexts.get(job.run, job.spec_json, allow_path=job.allow_path, paths={}, options={})
            root = Root(run, self.layout, self.base, job.round)
        context = AggregationContext(
            job.round,
            spec.seed,
            root=root,
            roster=job.roster,
            learning_rate=float(getattr(optimizer.options, "learning_rate", 1.0)),
            losses={row.node: row.loss for row in job.rows if row.loss is not None},
        )
        matrix = UpdateMatrix(terms, self.form.rule.layout)
        result = rule.aggregate(matrix, self._state_of(rule), context)
        if set(result.state) != set(rule.state_names):
            raise RunFailed(
                f"aggregator {self.rule_name!r} gave back the state {sorted(result.state)}, and says that it keeps "
                f"{sorted(rule.state_names)}"
            )
        return result

    def _state_of(self, rule: Aggregator) -> Mapping[str, Tensor]:
        found = {}
        for name in rule.state_names:
            path = self.job.state.get(AGGREGATOR + name)
            if path is not None and (size := path.stat().st_size):
                found[name] = map_float32(path, size // FLOAT32_BYTES)
        return found

    def _combined(self, part: Part, how: Literal["mean", "median"]) -> Tensor | None:
        """A part of all accepted updates as one, raw; None: none of them weighs in."""
        used = [row for row in self.rows if self.verdicts[row.node].accepted]
        shares = torch.tensor([self.verdicts[row.node].share for row in used], dtype=torch.float64)
        if not used or not shares.sum() > 0:
            return None
        rows, base = [row.tensors[part.name] for row in used], self.base.raw_buffers if part.in_model else None
        return combine_buffers(layout_of(part), rows, shares / shares.sum(), how, base)

    def _method_state(self, combined: Mapping[str, Tensor | None]) -> list[WrittenFile]:
        """What the method keeps with the version."""
        job, form = self.job, self.form
        flat = {
            part.name: raw.view(dtype_of(layout_of(part)))
            for part in form.tensors
            if not part.in_model and (raw := combined[part.name]) is not None
        }
        accepted = tuple(row.node for row in self.rows if self.verdicts[row.node].accepted)
        context = FinishContext(job.round, form.run, job.roster, accepted)
        state = form.method.finish(flat, form.state(job.state), context).state
        faults.reach("method-finish")
        if set(state) != {part.name for part in form.kept}:
            kept = sorted(part.name for part in form.kept)
            raise RunFailed(f"method {self.spec.method.name!r} made the state {sorted(state)}, and declares {kept}")
        return [self._kept(part, state[part.name]) for part in form.kept]

    def _kept(self, part: Part, values: Tensor) -> WrittenFile:
        name = slot(part.name)
        path = self.job.out_state[name]
        return WrittenFile(name, path, write_flat(path, layout_of(part), values))

    def _change(self, optimizer: ServerOptimizer) -> tuple[Codec, CodecContext] | None:
        codec = change_codec(self.spec, self.codec, self._main, optimizer)
        return None if codec is None else (codec, self._coding("change"))

    def _coding(self, purpose: str) -> CodecContext:
        job, spec = self.job, self.spec
        seed = derive_seed(spec.seed, purpose, job.round)
        return CodecContext(seed, job.round, spec.rounds_in_all, self.form.rule.layout, broadcast_of(job.state))

    def _broadcast(self) -> tuple[WrittenFile, ...]:
        if BROADCAST not in self.job.out_state:
            return ()
        text = self.codec.summary([row.reader for row in self.rows], self._coding("summary"))
        return (_written(BROADCAST, self.job.out_state[BROADCAST], text),)

    def _unused_state(self, written: set[str]) -> list[WrittenFile]:
        """What the run's rule keeps goes on unchanged through a round of its fallback."""
        left = [name for name in map(AGGREGATOR.__add__, self._main.state_names) if name not in written]
        old = self.job.state
        return [
            _written(name, self.job.out_state[name], old[name].read_bytes() if name in old else b"") for name in left
        ]


def broadcast_of(state: Mapping[str, Path]) -> bytes:
    """What the codec said of the last round; empty in the first."""
    return state[BROADCAST].read_bytes() if BROADCAST in state else b""


def _written(name: str, path: Path, content: bytes) -> WrittenFile:
    with ArtifactWriter(path) as writer:
        writer.write(memoryview(content))
        return WrittenFile(name, path, writer.close())
