from __future__ import annotations

from collections.abc import Sequence

import pytest

from covey.codecs.floats import Bf16
from covey.errors import PluginError, SpecError
from covey.layout import Layout, TensorSpec
from covey.methods.averaging import Averaging
from covey.methods.contract import METHODS, Method, Part, RunForm, parts_of
from covey.methods.scaffold import Scaffold
from covey.parts import COLLECT, DeclaredPart, brought, sent
from covey.testing.method_rounds import spec_of

LAYOUT = Layout.of([TensorSpec("w", "float32", (4,)), TensorSpec("n", "int64", (1,), "buffers")])
RULE = Part(name="m", layout=LAYOUT.part("model"), combine="rule", up=1, in_model=True)


class Declares(Method):
    """Declares what it is told to."""

    declared: Sequence[Part] = ()

    def parts(self, form: RunForm) -> Sequence[Part]:
        return self.declared


def declared(*parts: Part) -> tuple[Part, ...]:
    method = Declares()
    method.declared = parts
    return parts_of(method, RunForm(spec_of("none"), LAYOUT))


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ((), "not just one part for the rule"),
        ((RULE, Part(name="m", layout=LAYOUT)), "a part twice: m, m"),
        ((Part(name="m", layout=LAYOUT, combine="rule", up=1),), "'m' for the rule, but not as tensors of the model"),
        ((RULE, Part(name="x", layout=LAYOUT, codec="bf16")), "a codec for part 'x'"),
        ((RULE, Part(name="x", max_bytes=9, up=1)), "part 'x' of bytes, which can be sent up"),
        ((RULE, Part(name="x", layout=LAYOUT, up=1)), "part 'x' with tensors of several dtypes"),
        ((RULE, Part(name="x", layout=LAYOUT.part("model"), up=2)), "part 'x' for phase 2 of 1"),
        ((RULE, Part(name="x", layout=LAYOUT.part("model"), down=2)), "part 'x' to come down in a later phase"),
        ((RULE, Part(name="x", layout=LAYOUT.part("model"), combine="sum")), "to be combined as 'sum'"),
        (
            (RULE, Part(name="x", layout=LAYOUT.part("model"), combine=COLLECT, in_model=True)),
            "part 'x' to be collected, and as tensors of the model",
        ),
    ],
)
def test_a_method_s_mistakes_are_named(parts: tuple[Part, ...], text: str) -> None:
    with pytest.raises(SpecError, match=f"method.name: 'none' declares .*{text}.*; this is a mistake in the method"):
        declared(*parts)


def test_parts_are_sent_and_brought_by_declaration() -> None:
    form = RunForm(spec_of("scaffold", exchange={"codec": "bf16"}), LAYOUT)
    model, buffers, control = (part.declared(Bf16()) for part in parts_of(Scaffold(), form))
    vector = LAYOUT.part("model")
    assert model == DeclaredPart("model", "bf16", vector.sha256, 8, True, 1, None, "all", "rule", (), in_model=True)
    assert (buffers.size_bytes, buffers.combine, buffers.in_model) == (8, "mean", True)
    assert (control.size_bytes, control.codec, control.keep) == (16, "none", ("node-accepted", "version"))
    assert sent((model, buffers, control)) == (model, buffers, control)
    assert brought((model, buffers, control)) == (control,)
    assert sent((model, buffers, control), phase=2) == ()


def test_a_method_is_found_by_its_name() -> None:
    assert type(METHODS.make("none")) is Averaging
    with pytest.raises(PluginError, match=r"no method named 'x' is installed here; .*fedbn, .*fedprox, .*none,"):
        METHODS.make("x")
    with pytest.raises(SpecError, match=r"method\.options\.mu: unknown key"):
        METHODS.make("none", {"mu": 1})
