"""A run that begins with a model that there is already: a file that came with the submission, or another run's version.

The worker compares the file with the layout of the run's task, and writes it in the run's own form. That file is
version 0, and is recorded with the run itself: a coordinator that is killed before has neither, and afterwards both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from covey import faults
from covey.coordinator.runs.ports import Files, Record, Worker
from covey.coordinator.runs.retention import Retention
from covey.errors import Conflict, CoveyError, NotFound, SpecError
from covey.parts import FIRST, slot
from covey.spec import ModelSection, RunSpec, above_bounds, parse_json
from covey.spec.modes import mode_named
from covey.storage.record.contract import PartRecord, RunRecord, Store, VersionRecord
from covey.storage.record.versions import best_version, no_longer_kept
from covey.worker.jobs.operations import INITIAL
from covey.worker.jobs.runs import InitialJob, InitialResult

NEWEST = -1
AGAIN = "the file that the run would begin with was let go meanwhile; name a version that is kept, and submit again"


@dataclass(frozen=True)
class FirstModelServices:
    """What recording a submitted run is given.

    Attributes:
        store: The record.
        files: Model files.
        worker: Compares and writes models.
        allow_paths: Whether a run may name a task by its import path.
        retention: Lets files go.
        admit: Looks, in the record's thread, whether the run may be recorded still; raises if not.
    """

    store: Record
    files: Files
    worker: Worker
    allow_paths: bool
    retention: Retention
    admit: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class _Source:
    """Where the model is.

    Attributes:
        path: The file.
        digest: Under which it is on record, where it is; it may be let go at any time.
        parent: The run and the version that it is, `RUN@VERSION`; empty: it is no version of a run here.
    """

    path: Path
    digest: str = ""
    parent: str = ""


def require_bounds(store: Store, spec: RunSpec) -> tuple[str, ...]:
    """Refuse what is above its bound, but for what the run with whose model it begins has on record. Blocking.

    Args:
        store: The record.
        spec: A specification that is new.

    Returns:
        What it may have above a bound, as that run has it.

    Raises:
        SpecError: Each key, with its bound.
        NotFound: There is no such run.
    """
    above, (name, _) = list(above_bounds(spec)), spec.model.run
    known = set(above_bounds(parse_json(store.run(name).spec))) if above and name else set[str]()
    if wrong := [line for line in above if line not in known]:
        raise SpecError("; ".join(wrong))
    return tuple(above)


async def add_run(
    services: FirstModelServices, run: RunRecord, spec: RunSpec, given: Path | None = None
) -> tuple[RunRecord, RunSpec]:
    """Record a submitted run, with its first model where it does not make one from its seed; both as they are recorded.

    Args:
        services: What it takes.
        run: As it was submitted.
        spec: Its specification.
        given: The file that came with it; it stays the caller's.

    Raises:
        SpecError: `[model] initial` names a file, and none came along.
        NotFound: There is no such run or version, or its file is not kept.
        LayoutError: The model is not one of the run's task.
        Conflict: The version's file was let go meanwhile.
        CoveyError: As `admit` says.
    """
    store = services.store
    if not spec.model.initial:
        await store.call(_record_admitted, services, run)
        return run, spec
    out = services.files.scratch(0)
    try:
        source = await _source(services, spec.model, given, out)
        job = InitialJob(run.run, spec.to_json(), out, services.allow_paths, source=source.path)
        initial = await services.worker.do(INITIAL, job)
        section = ModelSection(initial=f"sha256:{initial.artifact.digest}", parent=source.parent)
        beside: tuple[PartRecord, ...] = ()
        if spec.evaluation.only:
            spec, beside = await _evaluated(services, spec, source.parent, initial)
        spec = spec.model_copy(update={"model": section})
        run = replace(run, spec=spec.to_json(), layout=initial.layout)
        first = VersionRecord(run.run, 0, initial.model_sha256, initial.artifact, run.submitted_at, state=beside)
        await asyncio.to_thread(services.files.secure, first.artifact, out)
        await store.call(_record, services, run, first, source, out)
    finally:
        services.files.hold(out, ())
        services.files.discard(out)
    return run, spec


def _record_admitted(services: FirstModelServices, run: RunRecord) -> None:
    services.admit()
    services.store.store.add_run(run)


def _record(services: FirstModelServices, run: RunRecord, first: VersionRecord, source: _Source, out: Path) -> None:
    """In the record's thread, where files are let go: what is needed still was not written over meanwhile."""
    store, files = services.store.store, services.files
    services.admit()
    needed = {source.digest, *(part.artifact.digest for part in first.state)} - {""}
    if needed and not needed <= store.referenced_digests():
        raise Conflict(AGAIN)
    files.adopt(out, first.artifact)
    faults.reach("before-submission")
    try:
        store.add_run(run, first)
    except CoveyError:
        services.retention.drop_unrecorded(store, [first.artifact.digest])
        raise
    faults.reach("after-submission")


async def _evaluated(
    services: FirstModelServices, spec: RunSpec, parent: str, initial: InitialResult
) -> tuple[RunSpec, tuple[PartRecord, ...]]:
    """The specification of a run that only evaluates, and the model with which its baseline begins, if it has one.

    Raises:
        SpecError: Nodes do not have, or will not have, what goes with this version; or the baseline's model has another
            layout.
        NotFound: That model is no longer kept.
    """
    store, (run, _, version) = services.store, parent.partition("@")
    section = spec.evaluation.model_copy(update={"local_initial": ""})
    if initial.stays:
        await store.call(_require_last, store.store, run, int(version), initial.stays)
    trained = await store.call(store.store.run, run) if run else None
    begun = parse_json(trained.spec) if trained is not None else None
    if trained is None or begun is None or not (section.local_rounds and begun.model.initial):
        return spec.model_copy(update={"evaluation": section}), ()
    if trained.layout != initial.layout:
        raise SpecError(
            f"evaluation.local_rounds: run {run} began with a model of its own, whose tensors are not those of this "
            "specification; leave [exchange] and the task's options as they are in that run"
        )
    first = await store.call(store.store.version, run, 0)
    await _kept(services, first)
    section = section.model_copy(update={"local_initial": f"sha256:{first.artifact.digest}"})
    part = PartRecord(slot(FIRST), "none", first.artifact)
    return spec.model_copy(update={"evaluation": section}), (part,)


def _require_last(store: Store, run: str, version: int, stays: int) -> None:
    """Nodes keep the newest values of what stays, and no others. Blocking."""
    record, newest = store.run(run), store.version(run, NEWEST).version
    if record.ended_at is None or version != newest:
        state = f"is {record.state}" if record.ended_at is None else f"ended with version {newest}"
        raise SpecError(
            f"evaluation.only: {stays} tensors stay on the nodes, who keep the newest values only: evaluate the last "
            f"version of a run that has ended; run {run} {state}"
        )


async def _source(services: FirstModelServices, section: ModelSection, given: Path | None, holder: Path) -> _Source:
    """Where the model is; held for `holder` before it is looked at, so that it stays."""
    files, store = services.files, services.store
    if given is not None:
        return _Source(given)
    name, wanted = section.run
    if name:
        version = await store.call(_version, store.store, name, wanted)
        files.hold(holder, [version.artifact.digest])
        return _Source(await _kept(services, version), version.artifact.digest, f"{version.run}@{version.version}")
    if not section.digest:
        raise SpecError(
            f"model.initial: {section.initial!r} did not come along; submit from the machine that has the file, with "
            "covey run submit"
        )
    known = await store.call(store.store.referenced_digests)
    files.hold(holder, {section.digest} & known)
    if section.digest not in known or not await asyncio.to_thread(files.check, section.digest):
        raise NotFound(f"model.initial: no file {section.initial} is here; name the file itself, or a run: run:NAME")
    return _Source(files.path(section.digest), section.digest, await _confirmed(services, section))


async def _kept(services: FirstModelServices, version: VersionRecord) -> Path:
    if not version.kept or not await asyncio.to_thread(services.files.check, version.artifact.digest):
        raise await services.store.call(no_longer_kept, services.store.store, version)
    return services.files.path(version.artifact.digest)


async def _confirmed(services: FirstModelServices, section: ModelSection) -> str:
    """The parent that a specification from the record names, if that version is the file."""
    run, _, number = section.parent.partition("@")
    if not number:
        return ""
    store = services.store
    version = await store.call(store.store.version, run, int(number))
    if version.artifact.digest != section.digest:
        raise SpecError(f"model.parent: version {number} of run {run} is another model; leave it out")
    return section.parent


def _version(store: Store, name: str, wanted: str) -> VersionRecord:
    """A version of another run, by its name. Blocking."""
    run = store.run(name)
    if not mode_named(run.mode).coordinated:
        raise NotFound(
            f"model.initial: the models of run {name} are with its nodes; make its consensus model a file "
            "(covey gossip export), and name that"
        )
    if wanted == "best":
        section = parse_json(run.spec).evaluation
        version = best_version(store.versions(run.run, kept_only=True), section.metric, section.goal)
    else:
        version = store.version(run.run, NEWEST if wanted == "newest" else int(wanted))
    if version.members:
        raise NotFound(f"model.initial: run {name} has no model that is the same for all; export a node's, and name it")
    return version
