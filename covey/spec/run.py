"""What the specifications of all modes have in common."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

from pydantic import Field
from typing_extensions import override

from covey.spec.mode import Mode
from covey.spec.policies import RoundsSection
from covey.spec.privacy import PrivacySection, StopSection
from covey.spec.sections import (
    AggregationSection,
    DataSection,
    EvaluationSection,
    ExchangeSection,
    KeepSection,
    MethodSection,
    ModelSection,
    Section,
    ServerOptimizerSection,
    TaskSection,
    WeightsSection,
    Wrong,
)
from covey.spec.training import TrainingSection

MOST_PRIORITY = 100
STUDY_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class RunSpec(Section, ABC):
    """A whole run specification; each mode has a model of its own (`covey.spec.modes`).

    Class attributes:
        facts: What is so of every run of the mode.
        unread: Keys that its runs do not read, with dots, and what to write instead.
        ignored: Sections that its runs do not read; the model refuses them where all else is right.
    """

    facts: ClassVar[Mode]
    unread: ClassVar[Mapping[str, str]] = {}
    ignored: ClassVar[tuple[str, ...]] = ()

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    mode: str
    seed: int = Field(default=0, ge=0, lt=2**63)
    task: TaskSection
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection(local_epochs=1)
    method: MethodSection = MethodSection()
    exchange: ExchangeSection = ExchangeSection()
    aggregation: AggregationSection = AggregationSection()
    weights: WeightsSection = WeightsSection()
    server_optimizer: ServerOptimizerSection = ServerOptimizerSection()
    evaluation: EvaluationSection = EvaluationSection()
    keep: KeepSection = KeepSection()
    rounds: RoundsSection = RoundsSection()
    model: Annotated[ModelSection, Field(exclude_if=lambda section: section == ModelSection())] = ModelSection()
    privacy: Annotated[PrivacySection | None, Field(exclude_if=lambda section: section is None)] = None
    study: Annotated[str, Field(max_length=100, pattern=rf"^$|{STUDY_NAME}", exclude_if=lambda given: not given)] = ""
    """The group of runs that it belongs to; its nodes and people are the coordinator's to say. Empty: none."""
    priority: Annotated[int, Field(ge=-MOST_PRIORITY, le=MOST_PRIORITY, exclude_if=lambda given: given == 0)] = 0
    """Runs of a higher one are first where places are free; of the same one, the older ones."""
    stop: Annotated[StopSection, Field(exclude_if=lambda section: section == StopSection())] = StopSection()

    def node_paths(self) -> dict[str, str]:
        """What a node runs that is named by an import path, by key of the specification."""
        named = {
            "task.name": self.task.name,
            "data.partition": self.data.partition,
            "training.optimizer": self.training.optimizer,
            "method.name": self.method.name,
            "exchange.codec": self.exchange.codec,
        }
        named |= {f"training.schedule.{name}.kind": schedule.kind for name, schedule in self.training.schedule.items()}
        return {key: name for key, name in named.items() if ":" in name}

    @property
    def full_name(self) -> str:
        """Its name; of a run of a study STUDY/NAME."""
        return f"{self.study}/{self.name}" if self.study else self.name

    @property
    @abstractmethod
    def rounds_in_all(self) -> int:
        """How many rounds, or updates (`facts.unit`), a run has, and a schedule or a budget is spread over."""

    @property
    @abstractmethod
    def min_nodes(self) -> int:
        """The run starts, and goes on, with at least so many nodes (the mode's section; the rule may need more)."""

    @property
    @abstractmethod
    def deadline_s(self) -> float:
        """How long nodes have: for a round, or for one assignment without progress."""

    @property
    def max_staleness(self) -> int | None:
        """Updates that are more versions old than this are rejected; None: there is no limit, or nothing is stale."""
        return None

    def privacy_terms(self) -> str:
        """What one training spends depends on, as canonical JSON."""
        terms = {
            "privacy": None if self.privacy is None else self.privacy.model_dump(mode="json"),
            "local_steps": self.training.local_steps,
            "local_epochs": self.training.local_epochs,
            "codec": self.exchange.codec,
            "options": self.exchange.options,
        }
        if "epsilon" in self.method.options:
            terms["method"] = self.method.options
        return json.dumps(terms, sort_keys=True, separators=(",", ":"))

    def to_json(self) -> str:
        """The specification as canonical JSON (sorted keys): what is stored and sent to the nodes."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))

    @override
    def impossible(self) -> Iterator[Wrong]:
        for name in type(self).model_fields:
            section = getattr(self, name)
            if isinstance(section, Section):
                yield from ((f"{name}.{key}", text, given) for key, text, given in section.impossible())
        if self.exchange.payload == "gradient":
            yield from self._one_gradient()
        if self.evaluation.only:
            yield from self._only_evaluated()
        if self.evaluation.every == 0:
            for key in self.stop.by_metric:
                text = "no version is evaluated before the last one; set evaluation.every to 1 or more"
                yield f"stop.{key}", text, getattr(self.stop, key)

    def _only_evaluated(self) -> Iterator[Wrong]:
        """What a run without training has no use for."""
        if not (self.facts.coordinated and self.facts.synchronous):
            yield "evaluation.only", f'nodes are asked in a round; write mode = "rounds", not "{self.mode}"', True
        if not self.model.initial:
            text = 'say which model is evaluated: a safetensors file, or a version of a run, "run:NAME@7"'
            yield "model.initial", text, self.model.initial
        if self.rounds.count != 1:
            yield "rounds.count", "with evaluation.only = true there is one round; write 1", self.rounds.count
        if self.privacy is not None and self.privacy.unit == "example":
            text = "nodes that hide their examples tell no metrics of them; leave [privacy] out of an evaluation"
            yield "privacy.unit", text, self.privacy.unit
        for key in ("codec", "payload", "worker_momentum"):
            if (given := getattr(self.exchange, key)) != type(self.exchange).model_fields[key].default:
                yield f"exchange.{key}", "with evaluation.only = true no update is sent; leave it out", given
        for name in ("aggregation", "server_optimizer", "stop"):
            section = getattr(self, name)
            if section != type(section)():
                text = f"with evaluation.only = true nothing is combined, and one round is all; leave [{name}] out"
                yield name, text, section.model_dump(exclude_defaults=True)

    def _one_gradient(self) -> Iterator[Wrong]:
        training, exchange = self.training, self.exchange
        for key, chosen in (("share", exchange.share != ("*",)), ("local", bool(exchange.local))):
            if chosen:
                text = 'with payload "gradient" there is no local step, in which what stays local would be trained'
                yield f"exchange.{key}", f"{text}; leave it out", getattr(exchange, key)
        if training.local_steps != 1:
            text = 'payload "gradient" needs local_steps = 1: one gradient, no local training'
            yield "training.local_steps", text, training.local_steps
        if training.weight_decay:
            text = 'with payload "gradient" the node takes no step that could decay weights; write 0'
            yield "training.weight_decay", text, training.weight_decay
        if training.optimizer != "sgd":
            text = 'with payload "gradient" the node takes no step; choose "sgd"'
            yield "training.optimizer", text, training.optimizer
