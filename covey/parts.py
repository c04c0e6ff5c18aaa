"""Named parts: the files that an update, or the state of a version, consists of, and what a method declares of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from covey.artifact import Artifact

Audience = Literal["all", "own", "others"]
"""Whose files a node gets of a part that goes down: what was made of all, its own, or those of the others."""
Keep = Literal["version", "node-accepted", "node-always"]
"""Where a part lives on: as a file of the version; on the node once its update was accepted, or in any case."""
RULE, MEAN, COLLECT = "rule", "mean", "collect"
"""How a part is combined: by the run's rule, by the mean with the shares that came out of that (the median where the
rule is robust), or not at all."""
METHOD = "method/"
LOCAL = "local"
"""Under this name (with `slot`) a node keeps the tensors of a run's model that never leave it."""
LOCAL_ALONE = "local-alone"
"""The same in a run without a global model: once it has ended nothing can be put together with them."""
FIRST = "first"
"""Beside a model that nodes only evaluate: the one with which its training began."""


def slot(part: str) -> str:
    """The name of the file that a version, or a node, keeps of a part."""
    return METHOD + part


def collected_name(part: str, node: str) -> str:
    """The name of the file of a part that a version keeps of one node."""
    return f"{slot(part)}/{node}"


def collected_node(name: str) -> str:
    """The node whose file has this name; empty: it is not one node's."""
    return name.removeprefix(METHOD).partition("/")[2] if name.startswith(METHOD) else ""


@dataclass(frozen=True)
class PartFile:
    """The file of one part, under a codec."""

    name: str
    codec: str
    artifact: Artifact


@dataclass(frozen=True)
class DeclaredPart:
    """One part of a run, as its method declares it; what the daemons go by.

    Attributes:
        name: The part's.
        codec: How it is encoded on its way up.
        layout: SHA-256 (hex) of its layout; empty: bytes of the method's own.
        size_bytes: Its encoded size: exact, or the most there may be.
        exact: Whether it must have just this size.
        up: In which phase of a round nodes send it; None: never.
        down: In which phase nodes get it; None: never.
        audience: Whose they get.
        combine: `rule`, `mean` or `collect`.
        keep: Where it lives on.
        in_model: Whether its tensors are tensors of the model's file: it goes down, and is kept, in that.
    """

    name: str
    codec: str
    layout: str
    size_bytes: int
    exact: bool
    up: int | None
    down: int | None
    audience: Audience
    combine: str
    keep: tuple[Keep, ...] = ()
    in_model: bool = False


def collected(parts: Sequence[DeclaredPart]) -> tuple[DeclaredPart, ...]:
    """The parts of which a version keeps the file of each node."""
    return tuple(part for part in parts if part.combine == COLLECT and "version" in part.keep)


def sent(parts: Sequence[DeclaredPart], phase: int = 1) -> tuple[DeclaredPart, ...]:
    """The parts that a node sends in a phase, in the order of the statement."""
    return tuple(part for part in parts if part.up == phase)


def brought(parts: Sequence[DeclaredPart], phase: int = 1) -> tuple[DeclaredPart, ...]:
    """The parts that a node gets in a phase as files beside the model."""
    return tuple(part for part in parts if part.down == phase and not part.in_model)


def rule_phase(parts: Sequence[DeclaredPart]) -> int:
    """In which phase nodes send the part under the run's rule; 1 where there is none."""
    return next((part.up for part in parts if part.combine == RULE and part.up is not None), 1)
