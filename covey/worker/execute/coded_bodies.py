"""Bodies of a gossip run with a codec: a model's parameters as the codec writes them, and what was lost of them.

A node that keeps the mass w_kept and gives u sends Q(z) where it had z, and goes on at

    z + (u / w_kept) (z - Q(z)),

so that w_kept z_kept + u Q(z) = (w_kept + u) z: nothing of x = w z is lost, and nothing is kept beside the model.
This is the residual of error feedback (Seide et al., "1-bit stochastic gradient descent", Interspeech 2014), given back
at once and scaled by the mass.
"""

from __future__ import annotations

from pathlib import Path

from covey.artifact import Artifact
from covey.codecs.contract import Codec, CodecContext
from covey.errors import LayoutError, LimitExceeded
from covey.layout import Layout
from covey.seeds import derive_seed
from covey.spec import GossipSpec
from covey.vectors import LinearCombination, Vector
from covey.worker.execute.from_spec import load_codec
from covey.worker.files.mapped import map_bytes
from covey.worker.files.updates import write_vector
from covey.worker.jobs.mixtures import MixJob


def codec_of(spec: GossipSpec, layout: Layout, behind: int = 0) -> Codec | None:
    """The codec of a run's bodies; None: models travel as they are, also where the codec would make them no shorter.

    Args:
        spec: The run.
        layout: Its models'.
        behind: Bytes that follow what the codec writes.

    Raises:
        PluginError: It is not installed here.
        SpecError: Its options are wrong.
    """
    codec, part = load_codec(spec.exchange), layout.part("model")
    return None if codec.lossless or codec.encoded_bytes(part.numel, part) + behind >= layout.file_bytes else codec


def open_body(path: Path, layout: Layout, codec: Codec) -> Vector:
    """The parameters in an encoded body, float32 `[d]`.

    Raises:
        LayoutError: It is none.
    """
    part = layout.part("model")
    try:
        return codec.reader(map_bytes(path), part.numel, part)
    except LimitExceeded as error:
        raise LayoutError(str(error)) from error


def write_body(
    path: Path, job: MixJob, spec: GossipSpec, codec: Codec, layout: Layout, model: Vector
) -> tuple[Artifact, Vector]:
    """Encode a node's model into a file; the file, and what it decodes to.

    Raises:
        TaskError: A value is not finite.
    """
    written = write_vector(path, codec, model, context_of(job, spec, layout), synced=job.synced)
    return written, open_body(path, layout, codec)


def context_of(job: MixJob, spec: GossipSpec, layout: Layout) -> CodecContext:
    """What the codec may know of a node's body of one step."""
    seed = derive_seed(spec.seed, "gossip-body", job.step, job.place)
    return CodecContext(seed, job.step + 1, spec.rounds_in_all, layout.part("model"))


def with_rest(base: Vector, change: Vector, sent: Vector, given: float) -> Vector:
    """The change of a node's model after it sent `sent` for base + change, and gave `given` times what it keeps."""
    return LinearCombination([(change, 1.0 + given), (base, given), (sent, -given)], base.d)
