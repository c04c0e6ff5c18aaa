"""Backups at another address (`s3://BUCKET/PREFIX`, or any other that fsspec reaches), each file once, by its digest.

    ADDRESS/files/DIGEST                  model and update files, shared by all backups that are there
    ADDRESS/backups/NAME/...              record and keys of one backup
    ADDRESS/backups/NAME/manifest.json    what it is made of; written last: without it there is no backup

Blocking. One program at a time writes to an address.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from covey.artifact import artifact_of_file
from covey.coordinator.backup.backup import FILES
from covey.coordinator.config import DATABASE
from covey.errors import Conflict, CoveyError, NotFound, StoreError
from covey.storage.files.spool import sync_folder

MANIFEST = "manifest.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Manifest(BaseModel, extra="forbid"):
    """What a backup is made of."""

    made_at: dt.datetime
    files: dict[Digest, Annotated[int, Field(ge=0)]]
    """Model and update files: digest to bytes."""
    others: dict[str, Digest]
    """Record, keys: path in the backup to SHA-256."""


@dataclass(frozen=True)
class Moved:
    """What was copied: files, bytes, and of which backup."""

    name: str
    files: int
    bytes: int


def push(folder: Path, address: str, keep: int | None = None) -> Moved:
    """Copy a backup to an address; model and update files that are there already are not sent again.

    Args:
        folder: What `covey coordinator backup` made; its name is the backup's there.
        address: Where to.
        keep: So many backups stay, the newest; what only others need is deleted. None: all stay.

    Raises:
        NotFound: The folder is no backup, or nothing here reaches such an address.
        Conflict: A backup of that name is there.
        StoreError: A file is damaged, or the address cannot be reached or written: then there is no new backup there.
    """
    if not (folder / DATABASE).is_file() or not NAME.fullmatch(folder.name):
        raise NotFound(f"{folder} is not a backup with a plain name: make one with covey coordinator backup --to")
    with _reached(address) as (system, root):
        place = f"{root}/backups/{folder.name}"
        if system.exists(f"{place}/{MANIFEST}"):
            raise Conflict(f"{address} has a backup {folder.name!r} already")
        paths = {path.name: path for path in sorted((folder / FILES).iterdir())}
        others = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent != folder / FILES]
        manifest = _Manifest(
            made_at=dt.datetime.now(dt.UTC),
            files={digest: path.stat().st_size for digest, path in paths.items()},
            others={path.relative_to(folder).as_posix(): _sha256(path) for path in others},
        )
        present = _sizes(system, f"{root}/files")
        sent = [
            (paths[digest], f"{root}/files/{digest}")
            for digest, size in manifest.files.items()
            if present.get(digest) != size
        ]
        for path, _ in sent:
            if artifact_of_file(path).digest != path.name:
                raise StoreError(f"{path} is damaged: its content is not the one of its name; make another backup")
        sent += [(path, f"{place}/{path.relative_to(folder).as_posix()}") for path in others]
        for path, target in sent:
            system.put_file(str(path), target)
            system.invalidate_cache()
            if system.info(target)["size"] != path.stat().st_size:
                raise StoreError(f"{target} did not arrive whole; give the command again")
        system.pipe_file(f"{place}/{MANIFEST}", manifest.model_dump_json().encode())
        if keep is not None:
            _prune(system, root, keep)
        return Moved(folder.name, len(sent), sum(path.stat().st_size for path, _ in sent))


def pull(address: str, folder: Path, name: str = "") -> Moved:
    """Copy a backup from an address into a new folder, and see that every file is what it was.

    Args:
        address: Where from.
        folder: New or empty. A folder without the record (its last file) is no backup.
        name: Of the backup; empty: the newest.

    Raises:
        NotFound: There is none of that name, or nothing here reaches such an address.
        Conflict: The folder is not empty.
        StoreError: A file is missing or damaged, or the address cannot be reached.
    """
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(f"{folder} is not empty; name a new folder")
    with _reached(address) as (system, root):
        known = _manifests(system, root)
        name = name or max(known, key=lambda each: known[each].made_at, default="")
        if name not in known:
            raise NotFound(f"{address} has no backup {name!r}; it has: {', '.join(sorted(known)) or 'none'}")
        manifest, place = known[name], f"{root}/backups/{name}"
        (folder / FILES).mkdir(parents=True, mode=0o700)
        for digest in manifest.files:
            target = folder / FILES / digest
            system.get_file(f"{root}/files/{digest}", str(target))
            if artifact_of_file(target).digest != digest:
                raise StoreError(f"the file {digest} at {address} is damaged")
        for path, digest in sorted(manifest.others.items(), key=lambda item: item[0] == DATABASE):
            target = folder / _inside(path)
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = target.with_name(f"{target.name}.part")
            system.get_file(f"{place}/{path}", str(part))
            if _sha256(part) != digest:
                raise StoreError(f"{path} of the backup {name!r} at {address} is damaged")
            part.chmod(0o600)
            part.replace(target)
        sync_folder(folder)
    moved = [path for path in folder.rglob("*") if path.is_file()]
    return Moved(name, len(moved), sum(path.stat().st_size for path in moved))


def _prune(system: Any, root: str, keep: int) -> None:
    """First a backup's manifest goes, then what nothing needs any more: what breaks off leaves no half backup."""
    known = _manifests(system, root)
    newest = sorted(known, key=lambda name: known[name].made_at)[-keep:]
    for name in known.keys() - set(newest):
        system.rm_file(f"{root}/backups/{name}/{MANIFEST}")
        system.rm(f"{root}/backups/{name}", recursive=True)
    needed = {digest for name in newest for digest in known[name].files}
    for digest in _sizes(system, f"{root}/files").keys() - needed:
        system.rm_file(f"{root}/files/{digest}")


def _manifests(system: Any, root: str) -> Mapping[str, _Manifest]:
    paths = [path for path in system.find(f"{root}/backups") if path.endswith(f"/{MANIFEST}")]
    try:
        return {path.split("/")[-2]: _Manifest.model_validate_json(system.cat_file(path)) for path in paths}
    except ValidationError as error:
        raise StoreError(f"a manifest there cannot be read ({error.error_count()} errors)") from None


def _sizes(system: Any, folder: str) -> dict[str, int]:
    system.invalidate_cache()
    if not system.exists(folder):
        return {}
    return {entry["name"].rpartition("/")[2]: entry["size"] for entry in system.ls(folder, detail=True)}


def _inside(path: str) -> PurePosixPath:
    inner = PurePosixPath(path)
    if inner.is_absolute() or ".." in inner.parts or not inner.parts:
        raise StoreError(f"a manifest there names the path {path[:80]!r}")
    return inner


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _reached(address: str) -> Iterator[tuple[Any, str]]:
    """Fsspec's file system for an address, and the path there. What goes wrong with it is said in words."""
    try:
        fsspec: Any = importlib.import_module("fsspec")
        options = {"auto_mkdir": True} if "://" not in address or address.startswith("file://") else {}
        system, root = fsspec.core.url_to_fs(address, **options)
    except ImportError as error:
        raise NotFound(f"{address} cannot be reached: {error}; for s3:// pip install s3fs") from error
    except ValueError as error:
        raise NotFound(f"{address} is no address that is known here: {error}") from error
    try:
        yield system, root.rstrip("/")
    except CoveyError:
        raise
    except FileNotFoundError as error:
        raise StoreError(f"{address}: there is no such bucket, folder or file ({error})") from error
    except PermissionError as error:
        raise StoreError(f"{address}: these credentials may not do that ({error})") from error
    except Exception as error:  # each kind of address has errors of its own
        raise StoreError(f"{address} cannot be reached: {type(error).__name__}: {error}"[:500]) from error
