"""The file that a specification names in `[model] initial`: looked at before anything is sent, and sent with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from covey.artifact import Artifact, artifact_of_file, read_chunks
from covey.client.specification import Specification, folder_of, parsed, request_of
from covey.errors import LimitExceeded, NotFound, SpecError
from covey.protos import admin_pb2 as pb
from covey.spec import ModelSection, RunSpec
from covey.spec.sections import conversion
from covey.wire.artifacts import artifact_message

if TYPE_CHECKING:
    from covey.client.reading.access import Access

G = TypeVar("G", bound=RunSpec)
SUBMIT_DEADLINE_S, UPLOAD_DEADLINE_S = 300.0, 86400.0
"""The coordinator's worker may still be starting: it checks what the specification names. A model may be large."""
MAX_FILE_BYTES = 1 << 40
MAX_HEADER_BYTES = 100_000_000
"""The longest header that safetensors reads."""
PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How files begin that torch.save, and pickle, write."""


@dataclass(frozen=True)
class GivenFile:
    """A safetensors file that a run is to begin with."""

    path: Path
    artifact: Artifact

    @property
    def section(self) -> ModelSection:
        """[model] as everybody has it who was told of the file."""
        return ModelSection(initial=f"sha256:{self.artifact.digest}")


def given_file(spec: RunSpec, folder: Path) -> GivenFile | None:
    """The file that a specification names; None: it names none.

    Args:
        spec: The specification.
        folder: From where a relative path counts.

    Raises:
        NotFound: It cannot be read.
        SpecError: It is no safetensors file; the message has the command that makes one of what torch saves.
        LimitExceeded: It is larger than any model may be.
    """
    if not spec.model.file:
        return None
    path = folder / Path(spec.model.file).expanduser()
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            _require_safetensors(path, size, file.read(9))
        if size > MAX_FILE_BYTES:
            raise LimitExceeded(f"model.initial: {path} has {size} bytes, at most {MAX_FILE_BYTES} are accepted")
        return GivenFile(path, artifact_of_file(path))
    except OSError as error:
        raise NotFound(f"model.initial: {path} cannot be read: {error.strerror}") from error


def by_digest(spec: G, folder: Path) -> tuple[G, Path | None]:
    """A specification that names its file by digest, as nodes without a coordinator compare it, and the file's path.

    None: it names no file. Arguments and errors as of `given_file`.
    """
    given = given_file(spec, folder)
    return (spec, None) if given is None else (spec.model_copy(update={"model": given.section}), given.path)


def _require_safetensors(path: Path, size: int, start: bytes) -> None:
    if start.startswith(PICKLES):
        raise SpecError(f"model.initial: {conversion(str(path))}")
    header = int.from_bytes(start[:8], "little")
    if len(start) < 9 or start[8:] != b"{" or not 2 <= header <= min(MAX_HEADER_BYTES, size - 8):
        raise SpecError(f"model.initial: {path} is not a safetensors file")


def submission_of(spec: Specification) -> tuple[pb.SubmitModelRequest, GivenFile | None]:
    """The message that announces a submission, and the file that is to come with it, if it names one.

    Raises:
        SpecError, NotFound, LimitExceeded: As `given_file`, and of a specification that is wrong.
    """
    request = request_of(spec)
    given = given_file(parsed(spec, later=True), folder_of(spec))
    model = artifact_message(given.artifact) if given is not None else None
    return pb.SubmitModelRequest(submission=request, model=model), given


def submitted(access: Access, spec: Specification) -> pb.Run:
    """Submit a specification, with the file that it begins with, if it names one.

    Raises:
        SpecError, NotFound, LimitExceeded: As `submission_of`, and what the coordinator says.
    """
    first, given = submission_of(spec)
    if given is None:
        plain: pb.Run = access.call("SubmitRun", first.submission, SUBMIT_DEADLINE_S)
        return plain
    with_model: pb.Run = access.upload("SubmitRunWithModel", first, chunks_of(given), UPLOAD_DEADLINE_S)
    return with_model


async def chunks_of(given: GivenFile) -> AsyncIterator[pb.SubmitModelRequest]:
    """The messages with the file's chunks."""
    with given.path.open("rb", buffering=0) as file:
        for chunk in read_chunks(file):
            yield pb.SubmitModelRequest(data=bytes(chunk))
