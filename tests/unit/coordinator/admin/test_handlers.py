"""Every method that the protocol has is served, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from covey.coordinator.admin.access.study_edits import StudyEdits
from covey.coordinator.admin.checking import RunChecks
from covey.coordinator.admin.handlers import ADMIN_CALLS, admin_handler
from covey.coordinator.admin.service import AdminService
from covey.coordinator.nodes.handlers import coordinator_handler
from covey.coordinator.nodes.service import CoordinatorService
from covey.protos import admin_pb2, coordinator_pb2


def served(handler, method):
    return handler.service(SimpleNamespace(method=method, invocation_metadata=()))


@pytest.mark.parametrize(
    ("make", "service", "descriptor"),
    [
        (admin_handler, AdminService, admin_pb2.DESCRIPTOR.services_by_name["Admin"]),
        (coordinator_handler, CoordinatorService, coordinator_pb2.DESCRIPTOR.services_by_name["Coordinator"]),
    ],
)
def test_every_method_of_a_service_has_a_handler_of_its_form(make: Any, service: Any, descriptor: Any) -> None:
    made = service.__new__(service)
    made.study_edits = StudyEdits.__new__(StudyEdits)  # which serves the calls of studies
    made.checks = RunChecks.__new__(RunChecks)
    handler = make(made)
    assert handler.service_name() == descriptor.full_name
    for method in descriptor.methods:
        found = served(handler, f"/{descriptor.full_name}/{method.name}")
        form = found.request_streaming, found.response_streaming
        assert form == (method.client_streaming, method.server_streaming), method.name
    assert served(handler, f"/{descriptor.full_name}/Other") is None


def test_unary_calls_of_admins_are_methods_of_the_service() -> None:
    assert all(callable(getattr(AdminService, method)) for method in ADMIN_CALLS.values())
    names = {method.name for method in admin_pb2.DESCRIPTOR.services_by_name["Admin"].methods}
    assert ADMIN_CALLS.keys() < names
