"""An address that fsspec reaches (`s3://BUCKET/PREFIX`, `file:///PATH`, ...): files by digest, each whole or not there.

    ADDRESS/artifacts/<digest>     a file
    ADDRESS/artifacts.json         whose they are

Blocking; its methods may be called from any thread.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from covey.artifact import read_chunks
from covey.errors import Conflict, CoveyError, Fenced, NotFound, Obstructed
from covey.storage.files.spool import sync_folder
from covey.validation import explain

FOLDER = "artifacts"
MARK = "artifacts.json"
PART = ".part"
AT_ONCE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "memory"})
"""Kinds of address that show a file when it is whole."""
S3_TRIES = 2
"""Of s3fs, which makes five; whoever waits for an address tries again himself, and says so meanwhile."""
_S3 = {"config_kwargs": {"connect_timeout": 10, "read_timeout": 30, "retries": {"total_max_attempts": 1}}}
_OPTIONS: Mapping[str, Mapping[str, Any]] = {"file": {"auto_mkdir": True}, "s3": _S3, "s3a": _S3}
_DIGEST = re.compile(r"[0-9a-f]{64}")


class _Mark(BaseModel):
    """Whose files are at an address."""

    model_config = ConfigDict(strict=True, frozen=True)

    record: str
    holder: str = ""
    """Of the coordinators on copies of this record, the one that has the address; empty: none of them."""


@contextlib.contextmanager
def reached(address: str) -> Iterator[tuple[Any, str]]:
    """Fsspec's file system for an address, and the path there. What goes wrong with it is said in words.

    Raises:
        NotFound: Nothing here reaches such an address.
        Obstructed: It cannot be reached now, or refuses.
    """
    try:
        fsspec: Any = importlib.import_module("fsspec")
        kind = fsspec.utils.get_protocol(address)
        options: Mapping[str, Any] = _OPTIONS.get(kind, {})
        system, root = fsspec.core.url_to_fs(address, **options)
        if options is _S3:
            system.retries = S3_TRIES
    except ImportError as error:
        raise NotFound(f"{address} cannot be reached: {error}; for s3:// pip install s3fs") from error
    except ValueError as error:
        raise NotFound(f"{address} is no address that is known here: {error}") from error
    try:
        yield system, root.rstrip("/")
    except CoveyError:
        raise
    except FileNotFoundError as error:
        raise Obstructed(f"{address}: there is no such bucket, folder or file ({error})") from error
    except PermissionError as error:
        raise Obstructed(f"{address}: these credentials may not do that ({error})") from error
    except Exception as error:  # each kind of address has errors of its own
        raise Obstructed(f"{address} cannot be reached: {type(error).__name__}: {error}"[:500]) from error


class Address:
    """Files by digest at an address, claimed before. Every method raises `NotFound` and `Obstructed` as `reached`.

    After `claim`, whatever writes or deletes there raises `Fenced` once another one has claimed it.

    Args:
        url: The address.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._holder = ""
        """Under which this process has claimed it; empty: it only reads."""

    @contextlib.contextmanager
    def _claimed(self) -> Iterator[tuple[Any, str]]:
        with reached(self.url) as (system, root):
            self._see_mark(system, root)
            yield system, root

    def _see_mark(self, system: Any, root: str) -> None:
        """A disk that is not mounted, or a bucket that is gone, is not taken for one with nothing in it."""
        system.invalidate_cache()
        mark = _Mark.model_validate_json(system.cat_file(f"{root}/{MARK}"))
        if self._holder and mark.holder != self._holder:
            raise Fenced(f"another coordinator has taken {self.url}, with the models of this one: stop one of the two")

    def holder(self, record: str, *, new: bool) -> str:
        """Who has the files of a record there; empty: nobody.

        Args:
            record: The record's id.
            new: Whether this may be an address where nobody's files are yet: the record's were at none before.

        Raises:
            Conflict: They are another record's, or there are none where some should be.
        """
        with reached(self.url) as (system, root):
            path = f"{root}/{MARK}"
            system.invalidate_cache()
            if system.exists(path):
                try:
                    owner = _Mark.model_validate_json(system.cat_file(path))
                except ValidationError as error:
                    raise Conflict(f"{self.url}/{MARK} cannot be read: {explain(error, _Mark)[:200]}") from error
                if owner.record != record:
                    raise Conflict(
                        f"{self.url} holds the models of another record, which would be deleted: name an address, or a "
                        "prefix, of its own for each coordinator"
                    )
                return owner.holder
            if not new:
                raise Conflict(
                    f"there is no {MARK} at {self.url}, where this coordinator's models should be: is it mounted? "
                    "If they are to move there, copy all that is at the address before; if they are lost, restore a "
                    "backup in a new folder"
                )
            if any(_DIGEST.fullmatch(name) for name in _sizes(system, f"{root}/{FOLDER}")):
                raise Conflict(f"{self.url} holds models, and no {MARK} that says whose: name another prefix")
            return ""

    def claim(self, record: str, holder: str) -> None:
        """Have the files of a record there from now on, instead of whoever had them; look at `holder` first.

        Args:
            record: The record's id.
            holder: What nobody else calls himself.

        Raises:
            Fenced: Somebody else took it at the same moment.
        """
        self._holder = holder
        with reached(self.url) as (system, root):
            _put(system, f"{root}/{MARK}", _Mark(record=record, holder=holder).model_dump_json().encode())
            self._see_mark(system, root)

    def sizes(self) -> dict[str, int]:
        """What is there: digest to bytes."""
        with self._claimed() as (system, root):
            return {name: size for name, size in _sizes(system, f"{root}/{FOLDER}").items() if _DIGEST.fullmatch(name)}

    def put(self, path: Path, digest: str) -> None:
        """Copy a file there, durably."""
        with self._claimed() as (system, root):
            target = f"{root}/{FOLDER}/{digest}"
            _put(system, target, path)
            system.invalidate_cache()
            if system.info(target)["size"] != path.stat().st_size:
                raise Obstructed(f"{target} did not arrive whole at {self.url}")

    def get(self, digest: str, target: Path) -> bool:
        """Copy a file from there, over what is at `target`; False: it is not there. Its content is not looked at."""
        with reached(self.url) as (system, root):
            try:
                system.get_file(f"{root}/{FOLDER}/{digest}", str(target))
            except FileNotFoundError:
                self._see_mark(system, root)
                return False
            return True

    def chunks(self, digest: str) -> Iterator[bytes]:
        """The content of a file, unchecked. Raises `NotFound` if it is not there, too."""
        with reached(self.url) as (system, root):
            path = f"{root}/{FOLDER}/{digest}"
            system.invalidate_cache()
            if not system.exists(path):
                raise NotFound(f"the file {digest} is not at {self.url}")
            with system.open(path, "rb") as file:
                for chunk in read_chunks(file):
                    yield bytes(chunk)

    def drop(self, digest: str) -> None:
        """Delete a file; what is not there is passed over."""
        with self._claimed() as (system, root), contextlib.suppress(FileNotFoundError):
            system.rm_file(f"{root}/{FOLDER}/{digest}")

    def drop_parts(self) -> None:
        """Delete what transfers that broke have left."""
        with self._claimed() as (system, root):
            for name in _sizes(system, f"{root}/{FOLDER}"):
                if name.endswith(PART):
                    system.rm_file(f"{root}/{FOLDER}/{name}")


def _sizes(system: Any, folder: str) -> dict[str, int]:
    system.invalidate_cache()
    if not system.exists(folder):
        return {}
    return {entry["name"].rpartition("/")[2]: entry["size"] for entry in system.ls(folder, detail=True)}


def _put(system: Any, target: str, content: bytes | Path) -> None:
    """Nobody ever sees half of it: it gets its name at the end, where the place does not do so by itself."""
    protocol = {system.protocol} if isinstance(system.protocol, str) else {*system.protocol}
    part = target if protocol & AT_ONCE else f"{target}.{uuid.uuid4().hex}{PART}"
    if isinstance(content, Path):
        system.put_file(str(content), part)
    else:
        system.pipe_file(part, content)
    if part == target:
        return
    if "file" not in protocol:
        system.mv(part, target)
        return
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    os.replace(part, target)
    sync_folder(Path(target).parent)
