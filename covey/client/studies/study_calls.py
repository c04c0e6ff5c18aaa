"""Studies, as the federation's admins see and change them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from covey.client.reading.translation import value_of, values_of
from covey.client.values import Study
from covey.errors import NotFound
from covey.protos import admin_pb2 as pb


class Call(Protocol):
    """Calls a method of the coordinator."""

    def __call__(self, method: str, request: Any, /) -> Any:
        """The reply."""


class Studies:
    """Of a federation: `Connection.studies`. All of it needs a running coordinator."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def all(self) -> list[Study]:
        """By name. Needs the role admin or auditor."""
        reply: pb.ListStudiesReply = self._call("ListStudies", pb.ListStudiesRequest())
        return list(values_of(Study, reply.studies))

    def named(self, name: str) -> Study:
        """One of them. Raises `NotFound`."""
        same = [study for study in self.all() if study.name == name]
        if not same:
            raise NotFound(f"there is no study {name!r}; covey study list shows those that there are")
        return same[0]

    def create(
        self,
        name: str,
        *,
        nodes: Iterable[str],
        admins: Iterable[str] = (),
        members: Iterable[str] = (),
        auditors: Iterable[str] = (),
        max_runs: int | None = None,
    ) -> Study:
        """Make a study; `nodes` may be `["*"]`: all. Raises `Conflict`: there is one of this name."""
        people = {"admins": tuple(admins), "members": tuple(members), "auditors": tuple(auditors)}
        given = pb.Study(name=name, nodes=tuple(nodes), max_runs=max_runs or 0, **people)
        return self._edit(pb.EditStudyRequest(study=given, create=True))

    def add(
        self,
        name: str,
        *,
        nodes: Iterable[str] = (),
        admins: Iterable[str] = (),
        members: Iterable[str] = (),
        auditors: Iterable[str] = (),
        max_runs: int | None = None,
    ) -> Study:
        """Add nodes and people; who has another role in it has the new one instead."""
        people = {"admins": tuple(admins), "members": tuple(members), "auditors": tuple(auditors)}
        return self._edit(
            pb.EditStudyRequest(study=pb.Study(name=name, nodes=tuple(nodes), max_runs=max_runs or 0, **people))
        )

    def remove(
        self,
        name: str,
        *,
        nodes: Iterable[str] = (),
        people: Iterable[str] = (),
        max_runs: bool = False,
        whole: bool = False,
    ) -> Study:
        """Take nodes, people or the limit `max_runs` out, or the whole study away, whose runs must have ended."""
        return self._edit(
            pb.EditStudyRequest(
                study=pb.Study(name=name),
                remove_nodes=tuple(nodes),
                remove_people=tuple(people),
                remove_max_runs=max_runs,
                remove_whole=whole,
            )
        )

    def _edit(self, request: pb.EditStudyRequest) -> Study:
        return value_of(Study, self._call("EditStudy", request))
