"""Backups at another address (`s3://BUCKET/PREFIX`, or any other that fsspec reaches), each file once, by its digest.

    ADDRESS/files/DIGEST                  model and update files, shared by all backups that are there
    ADDRESS/backups/NAME/...              record and keys of one backup
    ADDRESS/backups/NAME/manifest.json    what it is made of; written last: without it there is no backup

Blocking. One program at a time writes to an address.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from covey.artifact import artifact_of, artifact_of_file, read_chunks
from covey.coordinator.backup.backup import FILES, KEYS
from covey.coordinator.backup.ownership import FILE
from covey.coordinator.config import DATABASE
from covey.errors import Conflict, NotFound, StoreError
from covey.storage.files.address import reached
from covey.storage.files.spool import sync_folder
from covey.validation import explain

MANIFEST = "manifest.json"
PART = ".part"
OURS = {DATABASE, FILE, *KEYS, MANIFEST + PART}
"""What lies at the top of a backup that has no manifest; a folder with anything else in it is not deleted."""
LEFT_AFTER = dt.timedelta(days=1)
"""What no manifest names, and is younger, may be what another push is writing."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
DIGEST = re.compile(r"[0-9a-f]{64}")
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Manifest(BaseModel, extra="forbid"):
    """What a backup is made of."""

    made_at: AwareDatetime
    files: dict[Digest, Annotated[int, Field(ge=0)]]
    """Model and update files: digest to bytes."""
    others: dict[str, Digest]
    """Record, keys: path in the backup to SHA-256."""


@dataclass(frozen=True)
class Moved:
    """What was copied: files, bytes, and of which backup; and what should be looked at there, a sentence each."""

    name: str
    files: int
    bytes: int
    warnings: tuple[str, ...] = ()


def push(folder: Path, address: str, keep: int | None = None, verify: bool = False) -> Moved:
    """Copy a backup to an address; model and update files that are there already are not sent again.

    Args:
        folder: What `covey coordinator backup` made; its name is the backup's there.
        address: Where to.
        keep: So many backups stay: this one, and the newest others; what only the rest needs is deleted, and what
            commands that broke off left. Nothing is deleted while a manifest there cannot be read. None: all stay.
        verify: Model and update files of this backup that are there are read and hashed, and sent again where they are
            damaged; otherwise only their sizes are compared.

    Raises:
        NotFound: The folder is no backup, or nothing here reaches such an address.
        Conflict: A backup of that name is there.
        StoreError: A file is damaged, or cannot be read, or the address cannot be reached or written: then there is no
            new backup there, but where older ones could not be deleted.
    """
    if not (folder / DATABASE).is_file() or not NAME.fullmatch(folder.name):
        raise NotFound(f"{folder} is not a backup with a plain name: make one with covey coordinator backup --to")
    if not (folder / FILES).is_dir():
        raise NotFound(f"{folder} is not a whole backup, it has no folder {FILES}: make another one")
    manifest, paths = _described(folder)
    with reached(address) as (system, root):
        place = f"{root}/backups/{folder.name}"
        if system.exists(f"{place}/{MANIFEST}"):
            _manifest(system, root, folder.name)
            raise Conflict(f"{address} has a backup {folder.name!r} already")
        present = _sizes(system, f"{root}/files")
        missing = {digest for digest, size in manifest.files.items() if present.get(digest) != size}
        unsure = manifest.files.keys() - missing if verify else set[str]()
        damaged = {digest for digest in unsure if not _is_whole(system, f"{root}/files/{digest}", digest)}
        sent = [(paths[digest], f"{root}/files/{digest}") for digest in sorted(missing | damaged)]
        for path, _ in sent:
            if artifact_of_file(path).digest != path.name:
                raise StoreError(f"{path} is damaged: its content is not the one of its name; make another backup")
        sent += [(paths[inner], f"{place}/{inner}") for inner in manifest.others]
        for path, target in sent:
            system.put_file(str(path), target)
            system.invalidate_cache()
            if system.info(target)["size"] != path.stat().st_size:
                raise StoreError(f"{target} did not arrive whole; give the command again")
        _write_manifest(system, f"{place}/{MANIFEST}", manifest)
        healed = tuple(f"the file {digest} there was damaged, and was sent again" for digest in sorted(damaged))
        pruned = () if keep is None else _prune(system, root, folder.name, keep)
        return Moved(folder.name, len(sent), sum(path.stat().st_size for path, _ in sent), healed + pruned)


def pull(address: str, folder: Path, name: str = "") -> Moved:
    """Copy a backup from an address into a new folder, and see that every file is what it was.

    Args:
        address: Where from.
        folder: New or empty. A folder without the record (its last file) is no backup.
        name: Of the backup; empty: the newest of those whose manifests can be read.

    Raises:
        NotFound: There is none of that name, or nothing here reaches such an address.
        Conflict: The folder is not empty.
        StoreError: A file is missing or damaged, or the address cannot be reached.
    """
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(f"{folder} is not empty; name a new folder")
    with reached(address) as (system, root):
        warnings: tuple[str, ...] = ()
        if not name:
            known, warnings = _manifests(system, root)
            if warnings and not known:
                raise StoreError(warnings[0])
            name = max(known, key=lambda each: known[each].made_at, default="")
        if name not in (names := _names(system, root)):
            raise NotFound(f"{address} has no backup {name!r}; it has: {', '.join(names) or 'none'}")
        manifest, place = _manifest(system, root, name), f"{root}/backups/{name}"
        (folder / FILES).mkdir(parents=True, mode=0o700)
        for digest in manifest.files:
            target = folder / FILES / digest
            system.get_file(f"{root}/files/{digest}", str(target))
            if artifact_of_file(target).digest != digest:
                raise StoreError(
                    f"the file {digest} at {address} is damaged: push a backup there that has it, with --verify"
                )
            _sync(target)
        for path, digest in sorted(manifest.others.items(), key=lambda item: item[0] == DATABASE):
            target = folder / _inside(path)
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = target.with_name(target.name + PART)
            system.get_file(f"{place}/{path}", str(part))
            if _sha256(part) != digest:
                raise StoreError(f"{path} of the backup {name!r} at {address} is damaged")
            part.chmod(0o600)
            _sync(part)
            if path == DATABASE:
                for inner in (folder, *filter(Path.is_dir, folder.rglob("*"))):
                    sync_folder(inner)
            part.replace(target)
        sync_folder(folder)
    moved = [path for path in folder.rglob("*") if path.is_file()]
    return Moved(name, len(moved), sum(path.stat().st_size for path in moved), warnings)


def _described(folder: Path) -> tuple[_Manifest, dict[str, Path]]:
    """A backup's manifest, and where each file that it names is: by digest, or by path in the backup."""
    try:
        files = {path.name: path for path in sorted((folder / FILES).iterdir())}
        others = {
            path.relative_to(folder).as_posix(): path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.parent != folder / FILES
        }
        manifest = _Manifest(
            made_at=dt.datetime.now(dt.UTC),
            files={digest: path.stat().st_size for digest, path in files.items()},
            others={inner: _sha256(path) for inner, path in others.items()},
        )
    except ValidationError as error:
        raise StoreError(f"{folder / FILES} has a file without a digest as its name; make another backup") from error
    except OSError as error:
        raise StoreError(f"{folder} cannot be read: {error.strerror or error}: {error.filename}") from error
    return manifest, files | others


def _write_manifest(system: Any, path: str, manifest: _Manifest) -> None:
    """Nobody ever sees half of it: S3 shows a file when it is whole, other places get it under its name at the end."""
    content = manifest.model_dump_json().encode()
    if "s3" in system.protocol:
        system.pipe_file(path, content)
    else:
        system.pipe_file(path + PART, content)
        system.mv(path + PART, path)


def _prune(system: Any, root: str, pushed: str, keep: int) -> tuple[str, ...]:
    """First a backup's manifest goes, then what nothing needs any more: what breaks off leaves no half backup.

    Returns: What should be looked at.
    """
    known, unread = _manifests(system, root)
    newer = [name for name in sorted(known) if known[name].made_at > known[pushed].made_at]
    late = f"by its time, what was pushed now is older than {', '.join(newer)}: see to the clocks; pull it with --name"
    warnings = (*unread, late) if newer else unread
    if unread:
        return (*warnings, "nothing was deleted: what these backups need is not known")
    others = sorted(known.keys() - {pushed}, key=lambda name: known[name].made_at)
    gone = others[: max(0, len(others) + 1 - keep)]
    for name in gone:
        system.rm_file(f"{root}/backups/{name}/{MANIFEST}")
        system.rm(f"{root}/backups/{name}", recursive=True)
    needed = {digest for name in known.keys() - set(gone) for digest in known[name].files}
    freed = {digest for name in gone for digest in known[name].files}
    for digest in _sizes(system, f"{root}/files").keys() - needed:
        if digest in freed or (DIGEST.fullmatch(digest) and _is_left(system, f"{root}/files/{digest}")):
            system.rm_file(f"{root}/files/{digest}")
    for name, paths in _folders(system, root).items():
        place = f"{root}/backups/{name}"
        ours = {path.partition("/")[0] for path in paths} <= OURS
        if ours and all(_is_left(system, f"{place}/{path}") for path in paths):
            system.rm(place, recursive=True)
    return warnings


def _is_left(system: Any, path: str) -> bool:
    """Whether a file that no manifest names is old enough to be nobody's."""
    try:
        return bool(dt.datetime.now(dt.UTC) - system.modified(path) > LEFT_AFTER)
    except (NotImplementedError, TypeError):  # this kind of address has no times, or none with a zone
        return False


def _folders(system: Any, root: str) -> dict[str, set[str]]:
    """Each folder of `backups`, and the paths of the files in it."""
    system.invalidate_cache()
    folders: dict[str, set[str]] = {}
    for path in system.find(f"{root}/backups"):
        name, _, inner = path.removeprefix(f"{root}/backups/").partition("/")
        folders.setdefault(name, set()).add(inner)
    return folders


def _names(system: Any, root: str) -> list[str]:
    folders = _folders(system, root)
    return sorted(name for name, paths in folders.items() if MANIFEST in paths and NAME.fullmatch(name))


def _manifests(system: Any, root: str) -> tuple[dict[str, _Manifest], tuple[str, ...]]:
    """Each backup's manifest; and of each that cannot be read, why."""
    known, unread = {}, []
    for name in _names(system, root):
        try:
            known[name] = _manifest(system, root, name)
        except StoreError as error:
            unread.append(str(error))
    return known, tuple(unread)


def _manifest(system: Any, root: str, name: str) -> _Manifest:
    path = f"{root}/backups/{name}/{MANIFEST}"
    try:
        return _Manifest.model_validate_json(system.cat_file(path))
    except ValidationError as error:
        raise StoreError(
            f"{path} cannot be read ({explain(error, _Manifest)[:200]}): delete the folder {name} there, and push that "
            "backup again"
        ) from error


def _sizes(system: Any, folder: str) -> dict[str, int]:
    system.invalidate_cache()
    if not system.exists(folder):
        return {}
    return {entry["name"].rpartition("/")[2]: entry["size"] for entry in system.ls(folder, detail=True)}


def _is_whole(system: Any, path: str, digest: str) -> bool:
    with system.open(path, "rb") as file:
        return artifact_of(read_chunks(file)).digest == digest


def _inside(path: str) -> PurePosixPath:
    inner = PurePosixPath(path)
    if inner.is_absolute() or ".." in inner.parts or not inner.parts:
        raise StoreError(f"a manifest there names the path {path[:80]!r}")
    return inner


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
