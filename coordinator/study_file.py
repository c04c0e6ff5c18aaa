"""The file `studies.toml`: what it may say, and its text with one study changed.

What was written by hand around that study stays as it is.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from covey.errors import SpecError
from covey.spec.run import STUDY_NAME

ALL = "*"
StudyRole = Literal["admin", "member", "auditor"]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Study(_File):
    """[studies.NAME]."""

    nodes: tuple[str, ...]
    """That work for its runs; `["*"]`: all of the federation."""
    admins: tuple[str, ...] = ()
    """Names of certificates: they submit, stop and delete its runs, and shut nodes out of it."""
    members: tuple[str, ...] = ()
    """They submit and look at its runs."""
    auditors: tuple[str, ...] = ()
    """They look at its runs."""
    max_runs: int | None = Field(default=None, ge=1, le=16)
    """How many of its runs work at once; None: as many as the coordinator takes."""

    @model_validator(mode="after")
    def _one_role_each(self) -> Study:
        named = (*self.admins, *self.members, *self.auditors)
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)}: name everybody once")
        if ALL in named:
            raise ValueError('"*" stands for nodes only; name the people')
        return self

    @property
    def roles(self) -> dict[str, StudyRole]:
        """Name to role."""
        people: dict[StudyRole, tuple[str, ...]] = {
            "admin": self.admins,
            "member": self.members,
            "auditor": self.auditors,
        }
        return {name: role for role, names in people.items() for name in names}


class StudiesFile(_File):
    """The whole of `studies.toml`."""

    studies: dict[str, Study] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names(self) -> StudiesFile:
        for name in self.studies:
            if not re.fullmatch(STUDY_NAME, name) or len(name) > 100:
                raise ValueError(f"{name[:100]!r} cannot be a study's name: letters, digits, '.', '_' and '-'")
        return self


def with_study(text: str, name: str, study: Study | None) -> str:
    """A file's text with a study added, changed or (None) taken out; comments stay, those inside a list move above it.

    Raises:
        SpecError: The study is not written as a table `[studies.NAME]` of its own.
    """
    wanted = dict(StudiesFile.model_validate(tomllib.loads(text)).studies)
    is_new = name not in wanted
    if study is None:
        wanted.pop(name, None)
    else:
        wanted[name] = study
    changed = _appended(text, name, study) if is_new else _replaced(text, name, study)
    if not _says(changed, wanted):
        raise SpecError(
            f"studies.toml does not write the study {name!r} as a table [studies.{name}] of its own: change it by hand"
        )
    return changed


def _says(text: str, studies: dict[str, Study]) -> bool:
    try:
        return StudiesFile.model_validate(tomllib.loads(text)).studies == studies
    except ValueError:
        return False


def _appended(text: str, name: str, study: Study | None) -> str:
    if study is None:
        return text
    before = [text.rstrip("\n"), ""] if text.strip() else []
    return "\n".join([*before, _header(name), *_keys(study)]) + "\n"


def _replaced(text: str, name: str, study: Study | None) -> str:
    lines = text.splitlines()
    own = re.compile(rf"""\s*\[\s*studies\s*\.\s*["']?{re.escape(name)}["']?\s*\]\s*(#.*)?""")
    start = next((number for number, line in enumerate(lines) if own.fullmatch(line)), len(lines))
    end = next((n for n in range(start + 1, len(lines)) if re.match(r"\s*\[[^\]]*\]\s*(#.*)?$", lines[n])), len(lines))
    while end > start + 1 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1  # what stands before the next table is about that one
    comments = [line for line in lines[start + 1 : end] if line.lstrip().startswith("#")]
    own_lines = [] if study is None else [*lines[start : start + 1], *comments, *_keys(study)]
    return "\n".join([*lines[:start], *own_lines, *lines[end:]]) + "\n"


def _header(name: str) -> str:
    return f"[studies.{name if '.' not in name else json.dumps(name)}]"


def _keys(study: Study) -> list[str]:
    given = study.model_dump(exclude_defaults=True)
    lists = [f"{key} = [{', '.join(map(_quoted, names))}]" for key, names in given.items() if key != "max_runs"]
    return lists + ([f"max_runs = {study.max_runs}"] if study.max_runs else [])


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")
