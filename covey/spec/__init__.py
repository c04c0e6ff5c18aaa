"""The run specification: what one training job is, in TOML, validated once at submission.

Each mode has one model (`modes`), with the sections of all modes and its own. Every section is a frozen model that
refuses unknown keys; an error names the key, the value and the choices.
"""

from covey.spec.asynchronous import AsyncSpec
from covey.spec.bounds import above_bounds
from covey.spec.gossip import GossipSection, GossipSpec
from covey.spec.mode import Mode
from covey.spec.parse import parse_data, parse_json, parse_toml, without_faults, written_in
from covey.spec.policies import AsyncSection, RoundsSection
from covey.spec.privacy import PrivacySection, StopSection
from covey.spec.rounds import RoundsSpec
from covey.spec.run import RunSpec
from covey.spec.sections import (
    AggregationSection,
    DataSection,
    EvaluationSection,
    ExchangeSection,
    KeepSection,
    MethodSection,
    ModelSection,
    NamedSection,
    Section,
    ServerOptimizerSection,
    TaskSection,
    WeightsSection,
)
from covey.spec.training import Schedule, TrainingSection

__all__ = [
    "AggregationSection",
    "AsyncSection",
    "AsyncSpec",
    "DataSection",
    "EvaluationSection",
    "ExchangeSection",
    "GossipSection",
    "GossipSpec",
    "KeepSection",
    "MethodSection",
    "Mode",
    "ModelSection",
    "NamedSection",
    "PrivacySection",
    "RoundsSection",
    "RoundsSpec",
    "RunSpec",
    "Schedule",
    "Section",
    "ServerOptimizerSection",
    "StopSection",
    "TaskSection",
    "TrainingSection",
    "WeightsSection",
    "above_bounds",
    "parse_data",
    "parse_json",
    "parse_toml",
    "without_faults",
    "written_in",
]
