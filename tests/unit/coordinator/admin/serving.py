"""The service towards admins on a `World`, and calls of its callers."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from covey.coordinator.admin.service import AdminService, AdminServices
from covey.coordinator.admin.site_log import site_log_page
from covey.coordinator.backup.backup import BackupServices
from covey.coordinator.nodes.enrolment import Addresses, EnrolmentServices
from covey.coordinator.nodes.sessions import Sessions
from covey.coordinator.nodes.site_logs import FOLDER, SiteLogs
from covey.coordinator.runs.deletion import DeletionServices
from covey.storage.record.contract import NodeRecord
from covey.wire.channels import certified_peer


class Call:
    """A call with a certificate."""

    def __init__(self, pem):
        self._pem = pem

    def auth_context(self):
        return {"x509_pem_cert": [self._pem]}


def certified(world, identity) -> Any:
    """A call of somebody who is on record from now on."""
    peer = certified_peer(identity.certificate_pem)
    world.members.register(NodeRecord(peer.name, cast(Any, peer.role), "active", 1.0, certificate_serial=peer.serial))
    return cast(Any, Call(identity.certificate_pem))


def admin_service(world, authority, worker=None):
    given = world.services
    return AdminService(
        AdminServices(
            federation=given.federation,
            store=world.store,
            files=world.files,
            worker=worker or world.worker,
            signing_key=given.signer,
            sessions=Sessions(),
            members=world.members,
            runs=world.runs,
            scheduler=world.scheduler(),
            studies=world.studies,
            enrolment=EnrolmentServices(
                given.federation, world.store, authority, given.signer, world.members, Addresses(), given.clock
            ),
            backup=BackupServices(world.folder, world.store, world.files, world.retention, world.background),
            operation=world.operation,
            deletion=DeletionServices(world.record, world.files, world.retention),
            site_log=partial(site_log_page, SiteLogs(world.folder / FOLDER)),
            changes=world.changes,
            clock=given.clock,
            store_name="SQLite",
        )
    )
