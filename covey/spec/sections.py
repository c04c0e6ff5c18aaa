"""The sections of a specification that every mode has, but for [training]."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationInfo, model_validator
from typing_extensions import override

from covey.errors import SpecError
from covey.spec.bounds import ON_RECORD, Most, has_context
from covey.validation import refusals

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Options = dict[str, JsonValue]
Pattern = Annotated[str, Field(min_length=1, max_length=512)]
PluginName = Annotated[str, Field(min_length=1, max_length=200)]
ExtraOptions = Annotated[Options, Field(exclude_if=lambda options: not options)]
"""Options of a plug-in whose name is one key among others; left out of the JSON when empty, as stored specifications
have them."""
Wrong = tuple[str, str, object]
"""A key, what to write instead, and the value that was given."""
MOST_ROUNDS, MOST_RETRIES, MOST_LOCAL_ROUNDS = 100_000_000, 10_000, 10_000
"""Of a run, or its updates or steps; of one round, and of the local-only baseline."""
MOST_PARTS, MOST_SHARDS = 100_000, 1000
"""Of experiment data, which every node deals anew."""
LATER = {"combinations": "later"}
"""Context of a validation that leaves values which rule each other out to whoever asks `RunSpec.impossible`."""


class Idle(str):
    """Why a key is wrong that nothing reads: that keeps no run from working, so what is on record may have it."""

    @classmethod
    def without(cls, chooser: str) -> Idle:
        """Another key has to be set, so that it is read."""
        return cls(f"it says nothing without {chooser}; set that as well")


class Section(BaseModel):
    """Base of every section: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def impossible(self) -> Iterator[Wrong]:
        """Values that others of the same section, or of those in it, rule out."""
        yield from ()

    @model_validator(mode="after")
    def _refuse_impossible(self, info: ValidationInfo) -> Self:
        wrong = [] if has_context(info, LATER) else list(self.impossible())
        if has_context(info, ON_RECORD):
            wrong = [each for each in wrong if not isinstance(each[1], Idle)]
        if wrong:
            raise refusals(wrong)
        return self


class TaskSection(Section):
    """[task]: what is learned."""

    name: PluginName
    options: Options = {}
    nodes: Annotated[dict[str, Options], Field(exclude_if=lambda nodes: not nodes)] = {}
    """[task.nodes.NODE]: options of one node, by its name, in place of those of [task.options]: its own architecture,
    for one. What is shared of the model has the same tensors on all nodes (exchange.share)."""

    def with_own(self, options: Mapping[str, JsonValue]) -> TaskSection:
        """The task as a node makes it that has such options of its own."""
        return self.model_copy(update={"options": {**self.options, **options}}) if options else self

    def require_known(self, nodes: Iterable[str]) -> None:
        """Refuse options of a node that is none of these: nobody would read them.

        Raises:
            SpecError: The message names both.
        """
        if problem := _unknown("task.nodes.", self.nodes, nodes):
            raise SpecError(problem)


def _unknown(key: str, named: Iterable[str], nodes: Iterable[str]) -> str:
    """What is to be said of names, of which the first that no node has is put after the key; empty: all are known."""
    known = sorted(nodes)
    unknown = sorted(set(named) - set(known))
    if not unknown:
        return ""
    text = f"{key}{unknown[0]}: no node has this name; there are {', '.join(known[:20]) or 'none yet'}"
    return text + (f" and {len(known) - 20} more" if len(known) > 20 else "")


PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
"""How files end that torch.save writes."""
_OF_RUN = re.compile(r"run:([^@\s]{1,100})(?:@(\d{1,9}|newest|best))?")
_BY_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def conversion(path: str) -> str:
    """Why a file of torch.save is refused, and the command that makes a safetensors file of it."""
    other = str(PurePath(path).with_suffix(".safetensors"))
    code = (
        f"import torch, safetensors.torch as s; d = torch.load({path!r}, map_location='cpu', weights_only=True); "
        f"s.save_file({{k: v.contiguous().clone() for k, v in d.items()}}, {other!r})"
    )
    return f'{path} is a pickle, which may run anything as it is read; convert it: python -c "{code}"; and name {other}'


class ModelSection(Section):
    """[model]: what the run begins with; by default with what the task's model draws from the run's seed."""

    initial: Annotated[str, Field(max_length=4096)] = ""
    """A safetensors file ("begin.safetensors", as seen from the specification's folder), or a version of another run's
    model ("run:NAME", "run:NAME@7", "run:NAME@best"). On record it is "sha256:DIGEST": the file that all begin with."""
    parent: Annotated[str, Field(max_length=120)] = ""
    """The run and the version that it is, RUN@VERSION, where it is one. The coordinator notes it."""

    @property
    def digest(self) -> str:
        """Of the file (`covey.artifact`), where it is named so; else empty."""
        match = _BY_DIGEST.fullmatch(self.initial)
        return match[1] if match else ""

    @property
    def run(self) -> tuple[str, str]:
        """Another run's name, or id, and which of its versions; empty: none is named."""
        match = _OF_RUN.fullmatch(self.initial)
        return (match[1], match[2] or "newest") if match else ("", "")

    @property
    def file(self) -> str:
        """The path of the file; empty: none is named."""
        return "" if self.initial.startswith(("run:", "sha256:")) else self.initial

    @override
    def impossible(self) -> Iterator[Wrong]:
        if self.initial.startswith("run:") and not self.run[0]:
            yield "initial", 'write "run:NAME", "run:NAME@7" (a version) or "run:NAME@best"', self.initial
        if self.initial.startswith("sha256:") and not self.digest:
            yield "initial", "a digest is sha256: and 64 hexadecimal digits in lower case", self.initial
        if self.file.lower().endswith(PICKLED):
            yield "initial", conversion(self.file), self.initial
        if self.parent and not (self.digest and re.fullmatch(r"[^@\s]{1,100}@\d{1,9}", self.parent)):
            yield "parent", "the coordinator notes it; leave it out", self.parent


class DataSection(Section):
    """[data]: how the task's training data is split over the nodes (experiments), or `local` (each has its own)."""

    partition: PluginName = "iid"
    alpha: Positive = 0.5
    """Dirichlet concentration (partition = "dirichlet")."""
    shards_per_node: Annotated[int, Field(ge=1), Most(MOST_SHARDS)] = 2
    """Label shards each node gets (partition = "shards")."""
    parts: Annotated[int | None, Field(ge=1), Most(MOST_PARTS)] = None
    """How many parts the data is cut into; default: the number of nodes when the run starts."""
    options: ExtraOptions = Field(default={})
    """Options of a partition that is not one of Covey's own."""


class NamedSection(Section):
    """A section that names a plug-in and its options."""

    name: PluginName
    options: Options = {}


class MethodSection(NamedSection):
    """[method]: what travels and who plans it."""

    name: str = "none"


class AggregationSection(NamedSection):
    """[aggregation]: how the updates of a round become one (mode "rounds"), or the policy of mode "async"."""

    name: str = "mean"
    pre: tuple[NamedSection, ...] = ()
    """[[aggregation.pre]]: what is done to the updates before the rule sees them, in this order."""
    fallback: NamedSection | None = None
    """[aggregation.fallback]: the rule for a round that has too few updates for the rule itself."""
    root_examples: int = Field(default=100, ge=1)
    """How many of the coordinator's central examples a rule with trusted data (fltrust, zeno) gets; they are
    drawn from the seed, and evaluation leaves them out."""


class ServerOptimizerSection(NamedSection):
    """[server_optimizer]: how the aggregated direction becomes a version."""

    name: str = "sgd"


class ExchangeSection(Section):
    """[exchange]: what a node sends, and as which bytes."""

    payload: Literal["parameters", "delta", "gradient"] = "delta"
    codec: str = "none"
    error_feedback: bool | None = None
    """Whether a node adds what the codec lost to its next update; default: as the codec says."""
    downlink: Literal["auto", "model", "change"] = "auto"
    """What a node that has the version before gets: the whole model, or the committed change in the codec's form.
    auto: the change wherever codec and rule allow it."""
    models: Annotated[Literal["coordinator", "peers"], Field(exclude_if=lambda models: models == "coordinator")] = (
        "coordinator"
    )
    """Where a node has models from that it cannot make itself. peers: from other nodes that have them, as far as there
    are such nodes with an open port (--peer-listen); what they do not give comes from the coordinator."""
    worker_momentum: Beta = 0.0
    """beta: a node sends v <- beta v + (1 - beta) x instead of its vector x."""
    share: Annotated[tuple[Pattern, ...], Field(min_length=1)] = ("*",)
    """What of the model is shared: patterns (`*`, `?`, `[...]`) of names of parameters and buffers. The others stay
    local: each node keeps its own, and they never leave it."""
    local: Annotated[tuple[Pattern, ...], Field(exclude_if=lambda patterns: not patterns)] = ()
    """What stays local of that which `share` names."""
    frozen: Annotated[tuple[Pattern, ...], Field(exclude_if=lambda patterns: not patterns)] = ()
    """What keeps its first value: nobody trains it, and it never travels, for every node makes it itself."""
    options: Options = {}


_ROUNDING = 1e-6
"""Shares that differ by less are the same."""


class WeightsSection(Section):
    """[weights]: how much each node counts in a round."""

    by: Literal["examples", "equal"] = "examples"
    max_share: float = Field(default=1.0, gt=0, le=1)
    """No node counts more than this; 1: its examples decide. Specifications of earlier versions have 0.5 by default."""

    def capped(self, counted: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """The nodes of a round that `max_share` bounds, with the share that their examples are.

        Args:
            counted: The declared weight and the share in the result, by node, of those that have one.
        """
        whole = sum(weight for weight, _ in counted.values())
        if self.by == "equal" or not 0 < whole < math.inf:
            return {}
        bound = max(self.max_share, 1 / sum(weight > 0 for weight, _ in counted.values()))
        return {
            node: weight / whole
            for node, (weight, share) in counted.items()
            if weight / whole > bound + _ROUNDING and abs(share - bound) < _ROUNDING
        }


class EvaluationSection(Section):
    """[evaluation]: which versions are evaluated, and where."""

    every: int = Field(default=1, ge=0)
    """Every so many rounds, and the last version always; 0: never."""
    where: Literal["auto", "central", "nodes", "both"] = "auto"
    """auto: centrally where the task has central data, and on the nodes where they have evaluation data."""
    batch_size: int = Field(default=512, ge=1)
    metric: str = "accuracy"
    """The metric that names the best version (for [keep])."""
    goal: Literal["max", "min"] = "max"
    only: Annotated[bool, Field(exclude_if=lambda only: not only)] = False
    """The run trains nothing: in its one round the nodes evaluate the model that it begins with ([model] initial)."""
    local_rounds: Annotated[int, Field(ge=0, exclude_if=lambda n: not n), Most(MOST_LOCAL_ROUNDS)] = 0
    """With `only`: each node also trains for so many rounds of [training] alone, beginning with the model with which
    the training began, and evaluates what comes of it beside the other (the local-only baseline). That model never
    leaves it."""
    local_initial: Annotated[str, Field(max_length=100, exclude_if=lambda digest: not digest)] = ""
    """With `local_rounds`: the file of the model with which these begin ("sha256:DIGEST"), where the seed does not give
    it. The coordinator notes it: it is that with which the run began whose model is evaluated."""
    nodes: Annotated[tuple[PluginName, ...], Field(exclude_if=lambda nodes: not nodes)] = ()
    """With `only`: the nodes that are asked, by name; none: all."""

    def require_known(self, known: Iterable[str]) -> None:
        """Refuse names of nodes that none of these has: nobody would answer.

        Raises:
            SpecError: The message names both.
        """
        if problem := _unknown("evaluation.nodes: ", self.nodes, known):
            raise SpecError(problem)

    @override
    def impossible(self) -> Iterator[Wrong]:
        if self.local_initial and not (self.local_rounds and _BY_DIGEST.fullmatch(self.local_initial)):
            yield "local_initial", "the coordinator notes it; leave it out", self.local_initial
        for key in ("local_rounds", "nodes") if not self.only else ():
            if given := getattr(self, key):
                yield key, "it is for a run that only evaluates; write only = true, or leave it out", given
        if self.only and self.where == "central":
            yield "where", 'in a run that only evaluates, nodes do; write "auto", "both" or "nodes"', self.where
        if self.only and self.every == 0:
            yield "every", "the one version of a run that only evaluates is evaluated; leave it out", self.every


class KeepSection(Section):
    """[keep]: what stays on the coordinator's disk."""

    versions: int = Field(default=3, ge=1)
    updates: int = Field(default=1, ge=0)
