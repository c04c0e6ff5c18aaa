"""Finds the run that somebody names: by its id, its name, or its study and its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from covey.coordinator.studies import study_of
from covey.errors import Conflict, NotFound
from covey.storage.record.contract import RunRecord, Store

SCANNED = 100
"""Runs of one name that are read at a time: among so many, the newest of each study is looked for."""


def everything(run: RunRecord) -> bool:
    """Every run is seen."""
    return True


def find_run(store: Store, text: str, sees: Callable[[RunRecord], bool] = everything) -> RunRecord:
    """A run by its id, its name, or as STUDY/NAME (/NAME: of no study); of one name the newest. Blocking.

    Raises:
        NotFound: There is none that is seen.
        Conflict: Runs of several studies have the name.
    """
    study, has_study, name = text.rpartition("/")
    if not has_study and (by_id := _by_id(store, text)) is not None and sees(by_id):
        return by_id
    for page in _named(store, name):
        of: dict[str, RunRecord] = {}
        for run in page:
            if sees(run) and (not has_study or study_of(run) == study):
                of.setdefault(study_of(run), run)
        if len(of) > 1:
            choices = ", ".join(f"{each}/{name}" for each in sorted(of))
            raise Conflict(f"several studies have a run {name!r}; say which one: {choices}")
        if of:
            return next(iter(of.values()))
    raise NotFound(f"there is no run {text!r}; `covey run list` shows those there are")


def _by_id(store: Store, text: str) -> RunRecord | None:
    try:
        run = store.run(text)
    except NotFound:
        return None
    return run if run.run == text else None


def _named(store: Store, name: str) -> Iterator[list[RunRecord]]:
    """The runs of a name in pages, newest first."""
    page = store.runs(name=name, limit=SCANNED) if name else []
    while page:
        yield page
        page = store.runs(name=name, before=page[-1].run, limit=SCANNED)
