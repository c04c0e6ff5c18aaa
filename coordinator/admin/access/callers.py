"""Who may do what: the one place where a call is held against the caller's certificate and roles.

A certificate's role counts in the whole federation: an `admin` may do everything, an `auditor` see everything. A
`member` has no right but those that studies give to its name; so have the others there, beside their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from covey.coordinator.admin.access.finding import find_run
from covey.coordinator.nodes.members import Members
from covey.coordinator.studies import Studies, study_of
from covey.coordinator.study_file import StudyRole
from covey.errors import IdentityError
from covey.storage.record.contract import RunRecord, Store
from covey.wire.channels import Context, peer_identity

Right = Literal["read", "submit", "manage"]
"""`manage`: stop, delete, and shut nodes out."""
OF_STUDY: Mapping[StudyRole, tuple[Right, ...]] = {
    "admin": ("read", "submit", "manage"),
    "member": ("read", "submit"),
    "auditor": ("read",),
}
OF_FEDERATION: Mapping[str, tuple[Right, ...]] = {
    "admin": ("read", "submit", "manage"),
    "auditor": ("read",),
    "member": (),
}


@dataclass(frozen=True)
class Caller:
    """Who calls.

    Attributes:
        name: As the certificate says.
        role: Of the certificate.
        studies: Study to the role that the caller has in it.
    """

    name: str
    role: str
    studies: Mapping[str, StudyRole]

    def may(self, right: Right, study: str) -> bool:
        """Whether the caller has a right in a study; the default one is the federation's own."""
        return right in OF_FEDERATION[self.role] or (study in self.studies and right in OF_STUDY[self.studies[study]])

    @property
    def sees_all(self) -> bool:
        """Whether nothing is hidden from the caller."""
        return self.may("read", "")

    def sees(self, run: RunRecord) -> bool:
        """Whether the caller may know of a run."""
        return self.sees_all or self.may("read", study_of(run))

    def require(self, right: Right, study: str) -> None:
        """Raises `IdentityError`: the caller, who sees the study, does not have this right in it."""
        if not self.may(right, study):
            role = self.studies.get(study, self.role)
            needed = " or ".join(each for each, rights in OF_STUDY.items() if right in rights)
            where = f"in study {study!r}" if study else "in the federation"
            raise IdentityError(f"{self.name!r} (role {role} {where}) may not do this; it needs role {needed} there")


class Access:
    """Holds calls against who makes them.

    Args:
        members: Who is on record.
        studies: Who has which role where.
        store: The record.
        now: Unix time in seconds.
    """

    def __init__(self, members: Members, studies: Studies, store: Store, now: Callable[[], float]) -> None:
        self._members, self.studies, self._store, self._now = members, studies, store, now

    def caller(self, context: Context) -> Caller:
        """Who calls; with whatever rights.

        Raises:
            IdentityError: Not somebody of a role for this service; or as `Members.admit`.
        """
        peer = peer_identity(context)
        self._members.admit(peer, self._now())
        if peer.role not in OF_FEDERATION:
            raise IdentityError(f"{peer.name!r} (role {peer.role}) may not do this; it needs role admin or auditor")
        return Caller(peer.name, peer.role, self.studies.roles_of(peer.name))

    def federation(self, context: Context, *, writes: bool = True) -> Caller:
        """Who calls for what is the federation's own.

        Raises:
            IdentityError: Not an admin, or, for what only reads, an auditor; or as `caller`.
        """
        caller = self.caller(context)
        allowed = ("admin",) if writes else ("admin", "auditor")
        if caller.role not in allowed:
            raise IdentityError(
                f"{caller.name!r} (role {caller.role}) may not do this; it needs role {' or '.join(allowed)}"
            )
        return caller

    def run(self, caller: Caller, text: str, right: Right = "read") -> RunRecord:
        """A run that the caller names, if there is one that the caller sees. Blocking.

        Raises:
            NotFound, Conflict: As `find_run`.
            IdentityError: The caller sees it, and may not do this.
        """
        if caller.sees_all and not any(caller.may(right, study) for study in ("", *caller.studies)):
            caller.require(right, "")  # whatever run is meant
        record = find_run(self._store, text, caller.sees)
        caller.require(right, study_of(record))
        return record
