"""Mixing models of peers: the job and its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from covey.worker.jobs.files import ArtifactField
from covey.worker.jobs.training import AttackOrder


@dataclass(frozen=True)
class Portion:
    """A peer's model file, and its part of the mixture."""

    model: Path
    share: float
    source: str = ""
    """Which incarnation sent it, where bodies are differences, or kept by sender."""
    step: int = 0
    """In which it was published."""


@dataclass(frozen=True)
class Forgery:
    """What an adversary sends in place of its model (in a drill)."""

    attack: AttackOrder
    seed: int
    """The run's."""
    place: int
    """Of the adversary among the nodes."""
    known: tuple[Path, ...] = ()
    """Models of others that it was sent."""
    receiver: Path | None = None
    """The newest model of whom it sends to; None: it knows none."""


@dataclass(frozen=True)
class MixJob:
    """Make of a node's model what its protocol makes of it: after local training, or of models that came, as a file."""

    layout: str
    """Canonical JSON of the run's layout."""
    base: Path
    """The node's own model file; its buffers are kept."""
    out: Path
    portions: tuple[Portion, ...] = ()
    change: Path | None = None
    """What local training did: raw float32 `[d]`; None: there was none."""
    scale: float = 1.0
    buffers: Path | None = None
    """The buffers after local training, raw; None: those of the base."""
    spec_json: str = ""
    """The run, which names the protocol; empty: the weighted mean."""
    step: int = 0
    """From 0."""
    allow_path: bool = False
    """Whether the protocol may be named by an import path."""
    applies: bool = False
    """Whether it makes what is sent, after training or without one; else it mixes in what came."""
    kept: Path | None = None
    """The vectors that stay with the node: raw float32, one after the other; None: there are none yet."""
    out_kept: Path | None = None
    """Where to write them anew; None: the protocol keeps none."""
    weight: float = 1.0
    """The node's mass: before it gives some away, and with what is mixed in."""
    evictions: int = 0
    """How many incarnations it knows to be evicted."""
    place: int = 0
    """Of the node among all: a codec's random numbers are its own."""
    body: Path | None = None
    """Where to write what the node sends, if that is not the model itself: encoded, or parts of a method."""
    given: float = 0.0
    """Of the mass that it keeps, how many times as much the node gives."""
    is_whole: bool = False
    """Whether what is sent must be a model, where bodies are differences."""
    peers: tuple[str, ...] = ()
    """Who else takes part: of others nothing is kept."""
    leaves: bool = False
    """Whether what is made is handed over to a peer, for good."""
    parts: tuple[Path, ...] = ()
    """What local training wrote to be sent in place of the model: it goes to `body`, one after the other."""
    forgery: Forgery | None = None
    """Make what an adversary sends in place of the base, and nothing else."""
    synced: bool = True
    """Whether the file must survive a power cut: then the job waits for the disk."""
    may_stay: bool = False
    """Whether nothing is written if nothing changes: the node keeps the model that it has."""
    described: bool = True
    """Whether the result says the model's hash and how far it moved: each is a pass over the whole model."""


@dataclass(frozen=True)
class MixResult:
    """The mixture."""

    artifact: ArtifactField | None
    """None: nothing changed, and the base stays the node's model (`MixJob.may_stay`)."""
    model_sha256: str
    """Of what was written; empty: nothing was, or it is not described."""
    moved: float
    """How far it is from the base: the Euclidean norm of the difference of the parameters; 0: it is not described."""
    refused: tuple[int, ...] = ()
    """Positions of portions that are no finite models of this run: their shares stayed with the base."""
    body: ArtifactField | None = None
    """What is sent; None: the model itself is."""
    kept: ArtifactField | None = None
    """Of the vectors that stay with the node; None: they are as they were."""
