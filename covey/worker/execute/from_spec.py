"""The plug-ins that a run specification names, made with their options."""

from __future__ import annotations

from covey import plugins
from covey.aggregation.composition import Composed
from covey.aggregation.contract import Aggregator, PreAggregator
from covey.aggregation.server_optimizers import ServerOptimizer
from covey.codecs.contract import Codec
from covey.spec import ExchangeSection, NamedSection, RunSpec


def load_codec(exchange: ExchangeSection) -> Codec:
    """The run's codec.

    Raises:
        PluginError: Not installed here.
        SpecError: Its options are wrong.
    """
    codec: Codec = plugins.load("codec", exchange.codec)(exchange.options)
    return codec


def uses_feedback(exchange: ExchangeSection, codec: Codec) -> bool:
    """Whether nodes keep what the codec lost."""
    return codec.feedback if exchange.error_feedback is None else exchange.error_feedback


def load_aggregator(spec: RunSpec) -> Aggregator:
    """The run's rule, behind its pre-aggregators.

    Raises:
        PluginError: Not installed here.
        SpecError: Options are wrong.
    """
    rule = _rule(spec.aggregation)
    if not spec.aggregation.pre:
        return rule
    pre: list[PreAggregator] = [plugins.load("pre-aggregator", p.name)(p.options) for p in spec.aggregation.pre]
    return Composed(pre, rule)


def load_fallback(spec: RunSpec) -> Aggregator | None:
    """The rule for rounds with too few updates for the run's rule.

    Raises:
        PluginError: Not installed here.
        SpecError: Options are wrong.
    """
    return _rule(spec.aggregation.fallback) if spec.aggregation.fallback else None


def uses_root(spec: RunSpec) -> bool:
    """Whether the rule, or its fallback, needs trusted data."""
    fallback = load_fallback(spec)
    return load_aggregator(spec).needs_root or (fallback is not None and fallback.needs_root)


def _rule(section: NamedSection) -> Aggregator:
    rule: Aggregator = plugins.load("aggregator", section.name)(section.options)
    return rule


def load_server_optimizer(spec: RunSpec) -> ServerOptimizer:
    """The run's server optimizer.

    Raises:
        PluginError: Not installed here.
        SpecError: Its options are wrong.
    """
    section = spec.server_optimizer
    optimizer: ServerOptimizer = plugins.load("server-optimizer", section.name)(section.options)
    return optimizer


def change_codec(spec: RunSpec, codec: Codec, rule: Aggregator, optimizer: ServerOptimizer) -> Codec | None:
    """The codec in which committed changes travel down; None: nodes get whole models.

    A codec that loses nothing saves nothing. One-bit changes are exact only if every coordinate moves by the same
    amount: where the rule votes, and the server optimizer has no memory. What any other change loses is added to the
    next one, which only some codecs bear.
    """
    down = codec.downlink()
    if spec.exchange.downlink == "model" or spec.mode != "rounds" or down.lossless:
        return None
    if down.signs:
        return down if rule.votes and not optimizer.slots else None
    return down if down.contracts else None
