"""The parts of a run, as a method declares them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from covey.codecs.contract import Codec
from covey.errors import SpecError
from covey.layout import Layout
from covey.learning.task import Task
from covey.parts import COLLECT, MEAN, RULE, Audience, DeclaredPart, Keep
from covey.spec import RunSpec


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a run.

    Attributes:
        name: Unique in the run.
        layout: Its tensors. None: bytes of the method's own, at most `max_bytes`. All tensors of a part that is not in
            the model have one dtype: it is a flat vector.
        max_bytes: Of a part without a layout.
        codec: The codec's name, with the run's `exchange.options`. Only the rule's part may have one other than `none`.
        up: In which phase of a round (from 1) each node sends it; None: never.
        down: In which phase each node gets it; None: never.
        audience: Whose files a node gets.
        combine: `rule`: a float32 vector, combined by the run's rule; there is one such part. `mean`: tensors in their
            own dtypes, by the mean with the shares that count (by the median where the rule is robust). `collect`: not
            at all.
        keep: Where it lives on: with the `version` what `Method.finish` makes of it, or, where it is collected, the
            newest accepted file of each node; on a node what the recipe leaves
            in `RecipeInputs.state`, once the update was accepted (`node-accepted`), or in any case (`node-always`).
        in_model: Whether its tensors are tensors of the model, so that what is combined is the next model's.
    """

    name: str
    layout: Layout | None = None
    max_bytes: int = 0
    codec: str = "none"
    up: int | None = None
    down: int | None = None
    audience: Audience = "all"
    combine: str = MEAN
    keep: frozenset[Keep] = frozenset()
    in_model: bool = False

    def declared(self, codec: Codec) -> DeclaredPart:
        """The part as the daemons know it; `codec` is the run's."""
        size, exact = self.max_bytes, False
        if self.layout is not None:
            size, exact = self.layout.nbytes, True
            if self.combine == RULE:
                size, exact = codec.encoded_bytes(self.layout.numel, self.layout), codec.fixed_size
        return DeclaredPart(
            name=self.name,
            codec=self.codec,
            layout=self.layout.sha256 if self.layout is not None else "",
            size_bytes=size,
            exact=exact,
            up=self.up,
            down=self.down,
            audience=self.audience,
            combine=self.combine,
            keep=tuple(sorted(self.keep)),
            in_model=self.in_model,
        )


def _no_task() -> Task:
    raise SpecError("the run's task is not at hand here")


@dataclass(frozen=True)
class RunForm:
    """What a run's parts follow from.

    Attributes:
        spec: The specification.
        layout: Of the model as it is exchanged: without the tensors that stay local.
        task: Gives the run's task as it is here, made when it is first asked for; it may raise what `load_task` raises.
    """

    spec: RunSpec
    layout: Layout
    task: Callable[[], Task] = field(default=_no_task, compare=False)


def checked_parts(method: str, parts: Sequence[Part], phases: int = 1, *, has_model: bool = True) -> tuple[Part, ...]:
    """The parts of a method, by its name, with so many phases, and with a global model or without.

    Raises:
        SpecError: There is no such thing as one of them, or they contradict one another: the method's mistake.
    """
    problem = next(_mistakes(parts, phases, has_model), None)
    if problem is not None:
        raise SpecError(f"method.name: {method!r} declares {problem}; this is a mistake in the method")
    return tuple(parts)


def _mistakes(parts: Sequence[Part], phases: int, has_model: bool) -> Iterator[str]:
    names = [part.name for part in parts]
    if len(set(names)) != len(names):
        yield f"a part twice: {', '.join(names)}"
    if not has_model and any(part.combine == RULE or part.in_model for part in parts):
        yield "parts for the rule or the model, and no global model"
    if has_model and sum(part.combine == RULE for part in parts) != 1:
        yield 'not just one part for the rule (combine = "rule")'
    for part in parts:
        if part.combine not in (RULE, MEAN, COLLECT):
            yield f"part {part.name!r} to be combined as {part.combine!r}, which this version does not have"
        elif part.combine == RULE and (part.layout is None or not part.in_model):
            yield f"part {part.name!r} for the rule, but not as tensors of the model"
        elif part.combine != RULE and part.codec != "none":
            yield f"a codec for part {part.name!r}, which only the rule's part may have"
        elif part.layout is None and (part.combine != COLLECT or part.down or part.keep):
            yield f'part {part.name!r} of bytes, which can be sent up and looked at (combine = "collect"), and no more'
        elif part.combine == COLLECT and part.in_model:
            yield f"part {part.name!r} to be collected, and as tensors of the model"
        elif part.audience != "all" and (part.combine != COLLECT or "version" not in part.keep):
            yield f"an audience for part {part.name!r}, of which no file of each node is kept with the version"
        elif not part.in_model and part.layout is not None and len({t.dtype for t in part.layout.tensors}) > 1:
            yield f"part {part.name!r} with tensors of several dtypes"
        elif part.up is not None and not 1 <= part.up <= phases:
            yield f"part {part.name!r} for phase {part.up} of {phases}"
        elif part.down not in (None, 1):
            yield f"part {part.name!r} to come down in a later phase, which this version does not have"
