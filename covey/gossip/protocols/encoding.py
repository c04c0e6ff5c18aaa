"""Which codecs the bodies of a run may have (`[exchange] codec`), and why not the others.

With a share of its mass a node sends its model as the codec writes it. What the codec lost of that share of w z stays
with the sender, so the sums that push-sum keeps are kept. But a receiver counts what came by its mass: where the codec
leaves out most of a model, its mass leaves with a part of it, and models come to something else than their mean.
"""

from __future__ import annotations

from collections.abc import Iterator

from covey.spec import ExchangeSection, GossipSpec

FINE_ENOUGH = ("bf16", "int8", "qsgd")
LEAST_BITS, LEAST_LEVELS = 8, 127
CHOICE = 'choose "bf16", "int8", or "qsgd" with options = { bits = 8 }'
UNSCALED = (
    '"fp16" has no scale: it cuts magnitudes above 65504, and drops those below 3e-8, so there is no bound to what it '
    'loses of a model; choose "bf16", which is as short, or "qsgd" with options = { bits = 16 }, which is finer too'
)


def is_encoded(spec: GossipSpec) -> bool:
    """Whether bodies are encoded."""
    return spec.exchange.codec != "none"


def training_spec(spec: GossipSpec) -> GossipSpec:
    """The specification as local training is to read it: what training did stays on the node, and is not encoded."""
    return spec.model_copy(update={"exchange": ExchangeSection()})


def codec_refusals(spec: GossipSpec, protocol: str, *, is_possible: bool) -> Iterator[tuple[str, str]]:
    """What a run's codec cannot be: the key, and the reason with a way out.

    Args:
        spec: The run.
        protocol: Its protocol's name.
        is_possible: Whether the protocol's bodies may be encoded at all.
    """
    exchange = spec.exchange
    if not is_encoded(spec):
        return
    if not is_possible:
        text = f'what protocol "{protocol}" sends has no mass with which a sender could keep what a codec loses; '
        yield "exchange.codec", text + "leave it out"
    elif exchange.codec == "fp16":
        yield "exchange.codec", UNSCALED
    elif exchange.codec not in FINE_ENOUGH:
        text = (
            f'"{exchange.codec}" leaves out too much, or more than is known, of a model that counts by its whole mass; '
        )
        yield "exchange.codec", text + CHOICE
    elif exchange.codec == "qsgd" and not _is_fine(exchange.options):
        text = f"below {LEAST_BITS} bits ({LEAST_LEVELS} levels) too much of a model is noise; set bits = 8 or more"
        yield "exchange.options", text


def _is_fine(options: object) -> bool:
    given = options if isinstance(options, dict) else {}
    levels, bits = given.get("levels"), given.get("bits", 4)
    if isinstance(levels, int):
        return levels >= LEAST_LEVELS
    return isinstance(bits, int) and bits >= LEAST_BITS
