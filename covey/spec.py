"""The run specification: what one training job is, in TOML, validated once at submission.

Every section is a frozen model that refuses unknown keys; an error names the key, the value and the choices.
"""

from __future__ import annotations

import json
import tomllib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from covey.errors import SpecError
from covey.validation import explain, refusal

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Options = dict[str, JsonValue]


class Section(BaseModel):
    """Base of every section: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskSection(Section):
    """[task]: what is learned."""

    name: str = Field(min_length=1, max_length=200)
    options: Options = {}


class DataSection(Section):
    """[data]: how the task's training data is split over the nodes (experiments), or `local` (each has its own)."""

    partition: Literal["iid", "dirichlet", "shards", "key", "local"] = "iid"
    alpha: Positive = 0.5
    """Dirichlet concentration (partition = "dirichlet")."""
    shards_per_node: int = Field(default=2, ge=1)
    """Label shards each node gets (partition = "shards")."""
    parts: int | None = Field(default=None, ge=1)
    """How many parts the data is cut into; default: the number of nodes when the run starts."""


class Schedule(Section):
    """A per-round factor on one training number. Round r counts from 0."""

    kind: Literal["constant", "exponential", "linear", "cosine", "step"]
    factor: Positive = 1.0
    """exponential: factor ** r. step: factor ** (r // every). linear, cosine: the factor reached at the last round."""
    every: int = Field(default=1, ge=1)
    """Rounds a step lasts (kind = "step")."""
    warmup: int = Field(default=0, ge=0)
    """Rounds of linear warm-up before the schedule."""


class TrainingSection(Section):
    """[training]: the local training on every node."""

    optimizer: Literal["sgd", "momentum", "adam", "adamw"] = "sgd"
    learning_rate: Positive = 0.1
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Used by optimizer = "momentum"."""
    nesterov: bool = False
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Used by optimizer = "adam" and "adamw"."""
    weight_decay: NonNegative = 0.0
    batch_size: int = Field(default=32, ge=1)
    local_epochs: int | None = Field(default=None, ge=1)
    local_steps: int | None = Field(default=None, ge=1)
    clip_norm: Positive | None = None
    """Clip each step's gradient to this global l2 norm."""
    precision: Literal["float32", "bf16"] = "float32"
    """bf16: autocast where the device has it, else float32."""
    deterministic: Literal["require", "best-effort"] = "best-effort"
    threads: int = Field(default=1, ge=1, le=256)
    schedule: dict[Literal["learning_rate", "momentum", "weight_decay"], Schedule] = {}

    @model_validator(mode="before")
    @classmethod
    def _one_epoch_by_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("local_epochs") is None and data.get("local_steps") is None:
            return {**data, "local_epochs": 1}
        return data

    @model_validator(mode="after")
    def _epochs_or_steps(self) -> TrainingSection:
        if self.local_epochs is not None and self.local_steps is not None:
            raise refusal("local_steps", "give local_epochs or local_steps, not both", self.local_steps)
        return self


class NamedSection(Section):
    """A section that names a plug-in and its options."""

    name: str = Field(min_length=1, max_length=200)
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
    worker_momentum: Beta = 0.0
    """beta: a node sends v <- beta v + (1 - beta) x instead of its vector x."""
    share: tuple[str, ...] = ("*",)
    options: Options = {}


class WeightsSection(Section):
    """[weights]: how much each node counts in a round."""

    by: Literal["examples", "equal"] = "examples"
    max_share: float = Field(default=0.5, gt=0, le=1)


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


class KeepSection(Section):
    """[keep]: what stays on the coordinator's disk."""

    versions: int = Field(default=3, ge=1)
    updates: int = Field(default=1, ge=0)


class RoundsSection(Section):
    """[rounds]: the synchronous mode's policy."""

    count: int = Field(default=20, ge=1)
    participants: float | int = Field(default=1.0, gt=0)
    """A fraction (a decimal, at most 1.0) or a number (an integer) of the eligible nodes, drawn from the seed."""
    min_nodes: int = Field(default=1, ge=1)
    quorum: float = Field(default=1.0, gt=0, le=1)
    deadline_s: Positive = 600.0
    hard_deadline_s: Positive = 3600.0
    rejoin_s: NonNegative = 30.0
    """How long a node that lost its connection is still expected back before it counts as lost."""
    max_retries: int = Field(default=3, ge=0)
    short: Literal["wait", "fail"] = "wait"
    """What to do when the retries are used up: wait for more nodes, or fail the run."""

    @model_validator(mode="after")
    def _consistent(self) -> RoundsSection:
        if isinstance(self.participants, float) and self.participants > 1:
            text = "a fraction is at most 1.0; write a number of nodes as an integer"
            raise refusal("participants", text, self.participants)
        if isinstance(self.participants, int) and self.participants < self.min_nodes:
            text = f"fewer than min_nodes = {self.min_nodes}: no round could ever close"
            raise refusal("participants", text, self.participants)
        if self.hard_deadline_s < self.deadline_s:
            text = f"earlier than deadline_s = {self.deadline_s:g}"
            raise refusal("hard_deadline_s", text, self.hard_deadline_s)
        return self


class AsyncSection(Section):
    """[async]: the asynchronous mode's policy (mode = "async")."""

    updates: int = Field(default=1000, ge=1)
    """The run ends when so many updates have been decided on."""
    min_nodes: int = Field(default=1, ge=1)
    """The run starts, and goes on, with at least so many nodes; default: what the policy needs for its f."""
    max_staleness: int | None = Field(default=None, ge=0)
    """Updates that are more versions old than this are rejected."""
    deadline_s: Positive = 600.0
    """How long an assignment may take without progress before the node counts as lost for it."""


class RunSpec(Section):
    """A whole run specification."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    mode: Literal["rounds", "async", "gossip"] = "rounds"
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
    asynchronous: AsyncSection = Field(default=AsyncSection(), alias="async")

    @model_validator(mode="after")
    def _combinations(self) -> RunSpec:
        if self.exchange.payload == "gradient":
            self._one_gradient()
        if self.mode == "gossip":
            raise refusal("mode", 'not available in this version; choose "rounds" or "async"', self.mode)
        if self.exchange.share != ("*",):
            raise refusal("exchange.share", 'not available in this version; choose ["*"]', self.exchange.share)
        return self

    def _one_gradient(self) -> None:
        training = self.training
        if training.local_steps != 1:
            text = 'payload "gradient" needs local_steps = 1: one gradient, no local training'
            raise refusal("training.local_steps", text, training.local_steps)
        if training.weight_decay:
            text = 'with payload "gradient" the node takes no step that could decay weights; write 0'
            raise refusal("training.weight_decay", text, training.weight_decay)
        if training.optimizer != "sgd":
            text = 'with payload "gradient" the node takes no step; choose "sgd"'
            raise refusal("training.optimizer", text, training.optimizer)

    @property
    def rounds_in_all(self) -> int:
        """How many rounds a schedule, or a budget, is spread over; of an asynchronous run its updates."""
        return self.rounds.count if self.mode == "rounds" else self.asynchronous.updates

    def to_json(self) -> str:
        """The specification as canonical JSON (sorted keys): what is stored and sent to the nodes."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))


def parse_toml(text: str) -> RunSpec:
    """Read a run specification.

    Raises:
        SpecError: Not TOML, or a key is unknown, missing or has a wrong value; the message says which and why.
    """
    try:
        return RunSpec.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SpecError(f"not valid TOML: {error}") from error
    except ValidationError as error:
        raise SpecError(explain(error, RunSpec)) from error


def parse_json(text: str | bytes) -> RunSpec:
    """Read a specification from its canonical JSON.

    Raises:
        SpecError: As `parse_toml`.
    """
    try:
        return RunSpec.model_validate_json(text)
    except ValidationError as error:
        raise SpecError(explain(error, RunSpec)) from error
