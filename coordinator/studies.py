"""Studies: groups of runs with nodes and people of their own, as the operator writes them into `studies.toml`.

The file is read again when it has changed: who takes part is the operator's word, and takes effect at once for people,
and for nodes with the next run that is taken up. A run's study is in its specification.
"""

from __future__ import annotations

import json
import threading
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import structlog
from pydantic import ValidationError

from covey.coordinator.study_file import ALL, StudiesFile, Study, StudyRole, with_study
from covey.errors import SpecError
from covey.storage.files.spool import disk_errors
from covey.storage.record.contract import RunRecord
from covey.texts import read_text
from covey.validation import explain
from covey.wire.identities.authority import write_private

log = structlog.get_logger(room="coordinator")
STUDIES_FILE = "studies.toml"
"""In a coordinator's data directory."""
EVICTED = "evicted-of-studies"
"""The setting that holds, as JSON, the nodes that were shut out of each study."""


def read_studies(path: Path) -> Mapping[str, Study]:
    """The studies of a file; none where there is no file.

    Raises:
        SpecError: It is no TOML, or says what it cannot; the message names the key.
    """
    try:
        return StudiesFile.model_validate(tomllib.loads(read_text(path))).studies
    except FileNotFoundError:
        return {}
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpecError(f"{path} is not valid TOML: {error}") from error
    except ValidationError as error:
        raise SpecError(f"{path}: {explain(error, StudiesFile)}") from error


def study_of(run: RunRecord) -> str:
    """The study that a run belongs to; empty: the default one."""
    return _study_in(run.spec)


@lru_cache(maxsize=256)
def _study_in(spec: str) -> str:
    return str(json.loads(spec).get("study", ""))


def full_name_of(run: RunRecord) -> str:
    """A run's name; of a run of a study STUDY/NAME."""
    return f"{study}/{run.name}" if (study := study_of(run)) else run.name


class Studies:
    """Of one coordinator.

    Args:
        path: Their file; None: there are none.
        evicted: JSON of `EVICTED`.

    Raises:
        SpecError: As `read_studies`.
    """

    def __init__(self, path: Path | None = None, evicted: str | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        """Commands write the file in the record's thread."""
        self._stamp = self._stamp_now()
        self._known = read_studies(path) if path is not None else {}
        self._evicted: dict[str, list[str]] = json.loads(evicted or "{}")

    def now(self) -> Mapping[str, Study]:
        """The studies by name, as the file says now; if it is wrong, as it said before."""
        with self._lock:
            stamp = self._stamp_now()
            if self._path is not None and stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._known = read_studies(self._path)
                except SpecError as error:
                    log.error("the studies stay as they were", error=str(error))
            return self._known

    def rewrite(self, name: str, study: Study | None) -> None:
        """Write a study into the file, or (None) take it out; it counts at once. Blocking.

        A link to a file stays one, and the file keeps its mode; a new one is the coordinator's alone.

        Raises:
            SpecError, StoreError: As `rewritten`; or it cannot be written. It is as it was.
        """
        path, text = self.rewritten(name, study)
        with self._lock, disk_errors(path):
            write_private(path, text.encode(), path.stat().st_mode & 0o777 if path.exists() else 0o600)
            self._stamp, self._known = self._stamp_now(), read_studies(path)

    def rewritten(self, name: str, study: Study | None) -> tuple[Path, str]:
        """The file, and its text as `rewrite` would write it. Blocking.

        Raises:
            SpecError: The file is wrong as it is, or would be, or writes the study in another way than as its table.
        """
        if self._path is None:
            raise SpecError("this coordinator has no data directory, and so no file of studies")
        read_studies(self._path)
        return self._path.resolve(), with_study(read_text(self._path) if self._path.exists() else "", name, study)

    def _stamp_now(self) -> tuple[int, int]:
        try:
            stat = self._path.stat() if self._path is not None else None
        except OSError:
            stat = None
        return (stat.st_mtime_ns, stat.st_size) if stat is not None else (0, 0)

    def roles_of(self, person: str) -> dict[str, StudyRole]:
        """Study to the role that somebody has in it."""
        return {name: study.roles[person] for name, study in self.now().items() if person in study.roles}

    def scope(self, study: str) -> frozenset[str] | None:
        """Which nodes work for a study's runs; None: all. Of a study that is no more, none does."""
        known = self.now().get(study)
        if not study or (known is not None and ALL in known.nodes):
            return None
        return frozenset(known.nodes) if known is not None else frozenset()

    def evicted(self, study: str) -> frozenset[str]:
        """The nodes that were shut out of a study."""
        return frozenset(self._evicted.get(study, ()))

    def takes(self, study: str, node: str) -> bool:
        """Whether a node works for a study's runs."""
        scope = self.scope(study)
        return (scope is None or node in scope) and node not in self.evicted(study)

    def require_enough(self, study: str, nodes: int) -> None:
        """Check that a study has as many nodes as a run of it needs.

        Raises:
            SpecError: It has fewer.
        """
        scope = self.scope(study)
        if scope is not None and nodes > (have := len(scope - self.evicted(study))):
            out = sorted(scope & self.evicted(study))
            some = ", ".join([*out[:5], *["..."] * (len(out) > 5)])
            known = f"{have} node{'' if have == 1 else 's'}" + (f" ({some} shut out of it for good)" if out else "")
            raise SpecError(
                f"min_nodes = {nodes}, and the study {study!r} has {known}: the run would wait for ever; "
                "write fewer, or ask an admin of the federation to add some: covey study add"
            )

    def with_evicted(self, study: str, node: str) -> str:
        """Shut a node out of a study; returns what is to be kept as the setting `EVICTED`."""
        nodes = self._evicted.setdefault(study, [])
        if node not in nodes:
            nodes.append(node)
        return json.dumps(self._evicted, sort_keys=True)
