"""The plug-ins that a run specification names, made with their options."""

from __future__ import annotations

from typing import Any

from covey.aggregation.asynchronous.contract import ASYNC_POLICIES, AsyncPolicy
from covey.aggregation.composition import Composed
from covey.aggregation.contract import AGGREGATORS, PRE_AGGREGATORS, Aggregator
from covey.aggregation.server_optimizers import SERVER_OPTIMIZERS, ServerOptimizer
from covey.aggregation.static_clip import StaticClip
from covey.codecs.contract import CODECS, Codec
from covey.learning.privacy import Account, account_of, spent
from covey.methods.contract import METHODS, Method
from covey.spec import ExchangeSection, RunSpec


def load_codec(exchange: ExchangeSection) -> Codec:
    """The run's codec.

    Raises:
        PluginError: Not installed here.
        SpecError: Its options are wrong.
    """
    return CODECS.make(exchange.codec, exchange.options)


def hides_examples(spec: RunSpec, codec: Codec) -> bool:
    """Whether a node's updates hide its single examples: then it tells nothing else of its data."""
    return codec.private or (spec.privacy is not None and spec.privacy.unit == "example")


def noised_method(spec: RunSpec) -> Method | None:
    """The run's method, if it adds noise of its own on the nodes.

    Raises:
        PluginError: Not installed here.
        SpecError: Its options are wrong.
    """
    if not spec.facts.coordinated or spec.evaluation.only:
        return None
    method = METHODS.make(spec.method.name, spec.method.options)
    return method if method.privacy is not None else None


def account_in(spec: RunSpec, codec: Codec) -> Account | None:
    """What rounds of a run spend, by [privacy], its codec or its method; None: nothing is protected, or accounted for.

    Raises:
        PluginError: Of the account: the package dp-accounting is not installed.
    """
    method = noised_method(spec)
    if method is None or (message := method.privacy) is None:
        return account_of(spec, codec)
    return lambda rounds: spent(message, rounds)


def uses_feedback(exchange: ExchangeSection, codec: Codec) -> bool:
    """Whether nodes keep what the codec lost."""
    return codec.feedback if exchange.error_feedback is None else exchange.error_feedback


def load_aggregator(spec: RunSpec) -> Aggregator:
    """The run's rule, behind its pre-aggregators; with privacy of nodes each update is clipped first.

    Raises:
        PluginError: Not installed here.
        SpecError: Options are wrong.
    """
    section = spec.aggregation
    rule = AGGREGATORS.make(section.name, section.options)
    pre = [PRE_AGGREGATORS.make(p.name, p.options, f"aggregation.pre.{i}") for i, p in enumerate(section.pre)]
    if spec.privacy is not None and spec.privacy.unit == "node":
        pre.append(StaticClip({"c": spec.privacy.clip}))
    return Composed(pre, rule) if pre else rule


def load_fallback(spec: RunSpec) -> Aggregator | None:
    """The rule for rounds with too few updates for the run's rule.

    Raises:
        PluginError: Not installed here.
        SpecError: Options are wrong.
    """
    section = spec.aggregation.fallback
    return AGGREGATORS.make(section.name, section.options, "aggregation.fallback") if section else None


def by_policy(spec: RunSpec) -> bool:
    """Whether updates are decided on one at a time, by a policy, instead of by a rule."""
    return spec.facts.rule_kind == ASYNC_POLICIES.name


def load_policy(spec: RunSpec) -> AsyncPolicy[Any]:
    """The run's policy.

    Raises:
        PluginError: Not installed here.
        SpecError: Its options are wrong.
    """
    return ASYNC_POLICIES.make(spec.aggregation.name, spec.aggregation.options)


def uses_root(spec: RunSpec) -> bool:
    """Whether the rule, or its fallback, needs trusted data."""
    fallback = load_fallback(spec)
    return load_aggregator(spec).needs_root or (fallback is not None and fallback.needs_root)


def load_server_optimizer(spec: RunSpec) -> ServerOptimizer:
    """The run's server optimizer.

    Raises:
        PluginError: Not installed here.
        SpecError: Its options are wrong.
    """
    return SERVER_OPTIMIZERS.make(spec.server_optimizer.name, spec.server_optimizer.options)


def change_codec(spec: RunSpec, codec: Codec, rule: Aggregator, optimizer: ServerOptimizer) -> Codec | None:
    """The codec in which committed changes travel down; None: nodes get whole models.

    A codec that loses nothing saves nothing. One-bit changes are exact only if every coordinate moves by the same
    amount: where the rule votes, and the server optimizer has no memory. What any other change loses is added to the
    next one, which only some codecs bear.
    """
    down = codec.downlink()
    if spec.exchange.downlink == "model" or not spec.facts.synchronous or down.lossless:
        return None
    if down.signs:
        return down if rule.votes and not optimizer.slots else None
    return down if down.contracts else None
