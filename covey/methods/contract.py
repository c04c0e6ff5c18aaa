"""What a method is: the named parts of a run's updates, what it changes in local training, and what it keeps.

A method is made anew for each job, in the worker, and holds nothing: what lives on is in the parts' files.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from covey.aggregation.asynchronous.contract import AsyncPolicy
from covey.aggregation.contract import Aggregator
from covey.aggregation.server_optimizers import ServerOptimizer
from covey.codecs.contract import Codec, MessagePrivacy
from covey.layout import Layout
from covey.learning.recipe import Recipe
from covey.learning.task import Task
from covey.methods.parts import Part, RunForm, checked_parts
from covey.methods.planning import Answer, Close, Open, PlanContext
from covey.metrics import Metrics, Totals
from covey.options import PluginOptions
from covey.plugins import Kind, Pluggable
from covey.spec import RunSpec
from covey.vectors import TensorVector, Vector

__all__ = [
    "METHODS",
    "Answer",
    "Close",
    "Combination",
    "Contribution",
    "FinishContext",
    "LabelCounts",
    "Made",
    "Method",
    "Open",
    "Part",
    "PlanContext",
    "PluginOptions",
    "RunForm",
    "parts_of",
]


@dataclass(frozen=True)
class Combination:
    """What a specification names, made: what `Method.refusals` may look at.

    Attributes:
        spec: The specification.
        task: Its task.
        layout: Of the task's model as it is exchanged.
        rule: The aggregator, with its pre-aggregators; None in asynchronous mode.
        policy: The asynchronous policy; None in mode "rounds".
        fallback: The fallback rule.
        codec: The codec.
        optimizer: The server optimizer.
        central: How many central examples the task has here.
        method: The method.
        local: Names of the tensors that stay on the nodes.
    """

    spec: RunSpec
    task: Task
    layout: Layout
    rule: Aggregator | None
    policy: AsyncPolicy[Any] | None
    fallback: Aggregator | None
    codec: Codec
    optimizer: ServerOptimizer
    central: int
    method: Method
    local: frozenset[str] = frozenset()


LabelCounts = Literal["off", "noisy", "exact"]
"""What of the number of examples of each label leaves a node: nothing; with noise; as it is."""


@dataclass(frozen=True)
class Contribution:
    """What one accepted node sent; each part is opened when it is looked up.

    Attributes:
        share: In the result, 0 to 1; the rule's.
        parts: As `Answer.parts` has them, of all phases; of a part in the model, but not under the rule: its raw
            bytes, uint8.
        model: Makes the node's own model: the round's base moved by its vector, with its buffers; on the run's device,
            in evaluation mode, in memory of its own.
    """

    share: float
    parts: Mapping[str, Any]
    model: Callable[[], nn.Module]


@dataclass(frozen=True)
class FinishContext:
    """What a method may know of the round that is being finished. New fields come with defaults.

    Attributes:
        round: From 1.
        form: The run.
        roster: All nodes of the run, in order.
        accepted: The nodes whose update was accepted, in roster order.
        updates: What they sent, by node, in the same order.
        base: The parameters that the round began with: float32 `[d]` in layout order.
        closed: What `plan` closed the round with; None where the method has one phase.
        answers: All that `plan` was shown; empty where the method has one phase.
        model: Makes the model that the round ends with, as `Contribution.model`.
        evaluate: Metrics, as (total, count) by name, of a model or whatever stands for one in the task's `evaluate`, on
            the task's central data, those left out that the rule is trusted with; none where the task has no such data.
    """

    round: int
    form: RunForm
    roster: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    updates: Mapping[str, Contribution] = field(default_factory=dict)
    base: Vector = field(default_factory=lambda: TensorVector(torch.empty(0)))
    closed: Close | None = None
    answers: tuple[Answer, ...] = ()
    model: Callable[[], nn.Module] | None = None
    evaluate: Callable[[nn.Module], Metrics] = lambda _: {}


@dataclass(frozen=True)
class Made:
    """What a method made at the end of a round.

    Attributes:
        state: The files of the next version, by part: a flat vector for each part that is kept with the `version`, in
            the dtype of its layout.
        metrics: Of the new version, as (total, count) by name; they are on record with it.
    """

    state: Mapping[str, Tensor] = field(default_factory=dict)
    metrics: Mapping[str, Totals] = field(default_factory=dict)


class Method(Pluggable):
    """A method. Its docstring states the paper and equations, what is exchanged, and deviations.

    Class attributes:
        Options: The model of the method's options (`[method.options]`).
        modes: In which modes of a run it works.
        phases: How many answers of a node a round may have. Nodes train in phase 1 only, and make the parts of all
            phases then: those of later ones are held back until `plan` asks for them.
        on_retry: Whether the answers of a round that is tried again are kept, or void.
        global_model: Whether there is a model that is the same for all. Without one no part is under the rule or in the
            model, every version has the first model's file, and what the nodes' models became is in parts.
        member: Without a global model: the part, float32 in the layout of the model's parameters and kept
            `node-always`, that is each node's own model. It is loaded before training and evaluation.
    """

    Options: ClassVar[type[PluginOptions]] = PluginOptions
    modes: ClassVar[frozenset[str]] = frozenset({"rounds"})
    phases: ClassVar[int] = 1
    on_retry: ClassVar[Literal["keep", "restart"]] = "keep"
    global_model: ClassVar[bool] = True
    member: ClassVar[str] = ""

    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        """What it cannot work with: the specification's key, and the reason with a way out."""
        return iter(())

    def notes(self, run: Combination) -> Iterator[str]:
        """What one should know who submits a run of it: what it costs, in bytes."""
        return iter(())

    def local(self, model: nn.Module) -> frozenset[str]:
        """Names of the tensors (parameters, buffers) that never leave a node; `model` may have no values ("meta")."""
        return frozenset()

    def adapt(self, task: Task, model: nn.Module) -> frozenset[str]:
        """Change a new model of the task to what the method trains, in place, on every machine alike.

        Args:
            task: The run's.
            model: As `Task.model` made it; it may have no values ("meta").

        Returns:
            Names of the parameters that keep their first value, and never travel, as of `[exchange] frozen`.
        """
        return frozenset()

    @abstractmethod
    def parts(self, form: RunForm) -> Sequence[Part]:
        """The parts of a run, in the order in which they are signed."""

    @property
    def label_counts(self) -> LabelCounts:
        """What its updates tell of how many examples of each label there are; a node's operator has to allow it.

        Of "noisy" no update is made twice: new noise would tell more.
        """
        return "off"

    @property
    def privacy(self) -> MessagePrivacy | None:
        """What one update spends of the privacy of a node's examples, where the method adds noise on the node.

        Then nothing else of an update tells of them, no update is made twice, and rounds are accounted for. None: it
        adds none.
        """
        return None

    @property
    def reproducible(self) -> bool:
        """Whether that noise is drawn from the run's seed, so that it hides nothing."""
        return False

    @property
    def representations(self) -> bool:
        """Whether its updates have what a model makes of single examples; a node's operator has to allow it."""
        return False

    @property
    def statistics(self) -> bool:
        """Whether its updates are statistics of a node's data, of k examples or more each.

        A node's operator has to say what k is at least; nothing else of its data is said: no metrics either.
        """
        return False

    def objection(self, parts: Mapping[str, Any], form: RunForm) -> str:
        """Why an update is not acceptable; empty: it is. It costs that update only.

        A function of its arguments: it may be asked twice, and of an update that the rule does not take.

        Args:
            parts: What a node sent in all phases, as in `Answer.parts`; without the tensors of the model.
            form: The run.
        """
        return ""

    def recipe(self, phase: int) -> Recipe | None:
        """What is changed in the local training of a phase; None: nothing."""
        return None

    def among_peers(self, ahead: int) -> Method | None:
        """The method as nodes carry it out among themselves, where a protocol of gossip names it.

        Its parts are `model` and `buffers`, which are a node's own, and those that go to and come from others. None: it
        needs a coordinator.

        Args:
            ahead: For how many steps later than the next what is sent has to be good.
        """
        return None

    def plan(
        self, phase: int, answers: Sequence[Answer], state: Mapping[str, Tensor], context: PlanContext
    ) -> Open | Close:
        """What follows from a phase's answers; asked in runs of methods with several phases only.

        A function of its arguments: after a crash it is asked again, and what follows must be the same.

        Args:
            phase: The one that ended: all that were asked have answered, declined, or are lost.
            answers: All of the round, by phase and in roster order.
            state: What was kept with the version before; empty at first.
            context: The round.
        """
        received = {answer.node for answer in answers if answer.verdict == "received"}
        return Close(tuple(node for node in context.roster if node in received))

    def finish(self, parts: Mapping[str, Tensor], state: Mapping[str, Tensor], context: FinishContext) -> Made:
        """Make of a round's parts what is kept with the version. A function of its arguments: it may be done twice.

        Args:
            parts: Combined, each a flat vector, of those that are not in the model; one that no accepted update weighs
                in is missing.
            state: What was kept with the version before; empty at first.
            context: The round.
        """
        return Made()


METHODS = Kind("method", "covey.methods", Method, "method")


def parts_of(method: Method, form: RunForm) -> tuple[Part, ...]:
    """A run's parts.

    Raises:
        SpecError: The method declares something that there is not, or that contradicts itself.
    """
    return checked_parts(form.spec.method.name, method.parts(form), method.phases, has_model=method.global_model)
