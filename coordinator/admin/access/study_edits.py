"""Studies as the federation's admins see and change them: what is changed is written into `studies.toml`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from covey.coordinator.admin.access.callers import Access
from covey.coordinator.store_thread import StoreThread
from covey.coordinator.studies import Studies, study_of
from covey.coordinator.study_file import ALL, StudiesFile, Study
from covey.errors import Conflict, CoveyError, NotFound, SpecError
from covey.protos import admin_pb2 as pb
from covey.storage.record.contract import EventRecord
from covey.validation import explain
from covey.wire.channels import Context
from covey.wire.identities.authority import check_name

KIND = "study-changed"
MOST_NAMES = 1000
"""Of one request, so that the event of it can be read."""
STUDY_CALLS = {"ListStudies": "listed", "EditStudy": "edit"}
"""Unary methods of `covey.v1.Admin` to those of `StudyEdits`."""


@dataclass(frozen=True)
class StudyEdits:
    """Of one coordinator.

    Attributes:
        access: Who may do what.
        store: The record.
        studies: They themselves.
        wake: Makes the scheduler look again for runs that wait.
        now: Unix time in seconds.
    """

    access: Access
    store: StoreThread
    studies: Studies
    wake: Callable[[], None]
    now: Callable[[], float]

    async def listed(self, request: pb.ListStudiesRequest, context: Context) -> pb.ListStudiesReply:
        """All of them, by name."""
        self.access.federation(context, writes=False)
        return pb.ListStudiesReply(studies=[self._view(name) for name in sorted(self.studies.now())])

    async def edit(self, request: pb.EditStudyRequest, context: Context) -> pb.Study:
        """Make, change or take away a study; returns how it is then.

        Raises:
            NotFound: There is no such study, or one does not have who is to be taken out.
            Conflict: There is one of this name already; or runs of it have not ended.
            SpecError: The study would not be a valid one, or its file cannot be changed.
            StoreError: The change cannot be put on record, or the file cannot be written; nothing is changed.
        """
        caller = self.access.federation(context)
        await self.store.call(self._make, caller.name, request)
        self.wake()
        return self._view(request.study.name)

    def _make(self, by: str, request: pb.EditStudyRequest) -> None:
        """In the record's thread: nobody changes a study, or submits into one, meanwhile.

        It is on record first, so that no change is without its event; one that fails then has a second one.
        """
        name = request.study.name
        if request.remove_whole:
            self._require_no_runs(name)
        known = self.studies.now().get(name)
        study = changed(known, request)
        self.studies.rewritten(name, study)
        self._note(by, name, differences(known, study))
        try:
            self.studies.rewrite(name, study)
        except CoveyError as error:
            self._note(by, name, {"change": "failed", "error": str(error)})
            raise

    def _note(self, by: str, name: str, what: Mapping[str, object]) -> None:
        self.store.store.add_event(EventRecord(self.now(), KIND, detail={"by": by, "study": name, **what}))

    def _view(self, name: str) -> pb.Study:
        study = self.studies.now().get(name)
        return view_of(name, study, self.studies.evicted(name)) if study is not None else pb.Study(name=name)

    def _require_no_runs(self, name: str) -> None:
        runs = self.store.store.runs(states=("queued", "running"), limit=1_000_000)
        if left := [run.name for run in runs if study_of(run) == name]:
            raise Conflict(
                f"the study {name!r} has runs that have not ended, and would have no nodes: {', '.join(left[:5])}; "
                "stop them first, or wait"
            )


def changed(study: Study | None, request: pb.EditStudyRequest) -> Study | None:
    """A study as a request wants it; None: it is to be no more. Who is named in a role has no other one from then on.

    Raises:
        NotFound, Conflict, SpecError: As `StudyEdits.edit`.
    """
    name, given = request.study.name, request.study
    if request.create and study is not None:
        raise Conflict(f"there is a study {name!r} already; change it with: covey study add {name}")
    if not request.create and study is None:
        raise NotFound(f"there is no study {name!r}; covey study list shows those that there are")
    if request.remove_whole:
        return None
    people = [*given.admins, *given.members, *given.auditors]
    new = [*(node for node in given.nodes if node != ALL), *people]
    if len(new) + len(request.remove_nodes) + len(request.remove_people) > MOST_NAMES:
        raise SpecError(f"more than {MOST_NAMES} names at once; give them in several commands")
    for each in new:
        check_name(each)
    before = study or Study(nodes=())
    out = {*people, *request.remove_people}
    unknown = set(request.remove_nodes) - set(before.nodes) | set(request.remove_people) - set(before.roles)
    if unknown:
        raise NotFound(f"the study {name!r} does not name {', '.join(sorted(unknown))}")
    nodes = [*(node for node in before.nodes if node not in request.remove_nodes), *given.nodes]
    fields = {
        "nodes": list(dict.fromkeys(nodes)),
        "admins": [*(each for each in before.admins if each not in out), *given.admins],
        "members": [*(each for each in before.members if each not in out), *given.members],
        "auditors": [*(each for each in before.auditors if each not in out), *given.auditors],
        "max_runs": given.max_runs or (None if request.remove_max_runs else before.max_runs),
    }
    try:
        return StudiesFile.model_validate({"studies": {name: fields}}).studies[name]
    except ValidationError as error:
        raise SpecError(explain(error, StudiesFile)) from error


def differences(before: Study | None, after: Study | None) -> dict[str, object]:
    """What a change did, for the record."""
    was, now = _said(before), _said(after)
    what = "created" if before is None else "changed" if after is not None else "removed"
    return {"change": what, "added": sorted(now - was), "taken_out": sorted(was - now)}


def _said(study: Study | None) -> set[str]:
    if study is None:
        return set()
    people = {f"{role} {name}" for name, role in study.roles.items()}
    most = {f"max_runs {study.max_runs}"} if study.max_runs else set()
    return {f"node {node}" for node in study.nodes} | people | most


def view_of(name: str, study: Study, evicted: frozenset[str]) -> pb.Study:
    """A study for who asks."""
    return pb.Study(
        name=name,
        nodes=study.nodes,
        admins=study.admins,
        members=study.members,
        auditors=study.auditors,
        max_runs=study.max_runs or 0,
        evicted=sorted(evicted),
    )
