"""Submissions into a study: who may, under which name, and which models they may begin with. All is blocking."""

from __future__ import annotations

from covey.coordinator.admin.access.callers import Caller
from covey.coordinator.admin.access.finding import find_run
from covey.coordinator.studies import Studies, study_of
from covey.errors import Conflict, NotFound, SpecError
from covey.spec import RunSpec
from covey.storage.record.contract import Store


def in_own_study(store: Store, studies: Studies, spec: RunSpec, caller: Caller) -> RunSpec:
    """A specification as its study allows it; the run whose model it begins with is named by its id.

    Raises:
        SpecError: There is no such study, or none that the caller sees; or the model is a file of a run that is not.
        IdentityError: The caller may not submit there.
        NotFound: There is no run, that the caller sees, of the name with whose model it is to begin.
        Conflict: The study has a run of this name.
    """
    require_own_study(studies, spec.study, caller)
    spec = _with_own_model(store, spec, caller)
    require_free_name(store, spec)
    return spec


def require_own_study(studies: Studies, study: str, caller: Caller) -> None:
    """See that there is a study, and that somebody may submit there.

    Raises:
        SpecError, IdentityError: As `in_own_study`.
    """
    if study and (study not in studies.now() or not caller.may("read", study)):
        yours = ", ".join(name for name in sorted(studies.now()) if caller.may("submit", name))
        raise SpecError(f"study: there is no study {study!r} here for you; choose one of yours ({yours or 'none'})")
    caller.require("submit", study)


def _with_own_model(store: Store, spec: RunSpec, caller: Caller) -> RunSpec:
    section, (name, wanted) = spec.model, spec.model.run
    if name:
        run = find_run(store, name, caller.sees).run
        return spec.model_copy(update={"model": section.model_copy(update={"initial": f"run:{run}@{wanted}"})})
    if section.digest and not caller.sees_all:
        try:
            find_run(store, section.parent.partition("@")[0], caller.sees)
        except NotFound:
            text = 'name the run that has this model ("run:NAME"), or the file: a digest may be of another study'
            raise SpecError(f"model.initial: {text}") from None
    return spec


def require_free_name(store: Store, spec: RunSpec) -> None:
    """See that a name is the only one in its study, but for runs that continue the one of that name.

    Raises:
        Conflict: It is not.
    """
    if not spec.study:
        return
    try:
        known = find_run(store, f"{spec.study}/{spec.name}")
    except NotFound:
        return
    parent = spec.model.run[0] or spec.model.parent.partition("@")[0]
    continued = parent and store.run(parent)
    if not continued or (continued.name, study_of(continued)) != (spec.name, spec.study):
        raise Conflict(f"study {spec.study!r} has a run {spec.name!r} already ({known.run}); choose another name")
