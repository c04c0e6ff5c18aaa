"""Where a coordinator's model and update files are: in its data directory, or beside it at an address."""

from __future__ import annotations

import asyncio

import structlog

from covey.coordinator.backup.artifacts_address import take_address
from covey.coordinator.backup.ownership import SETTING
from covey.coordinator.config import CoordinatorConfig
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.files.distant import DistantFiles
from covey.storage.record.contract import Store

FOLDER = "files"
TIDY_S = 5.0
log = structlog.get_logger(room="coordinator")


def open_files(config: CoordinatorConfig, store: Store) -> ArtifactFiles:
    """The files of a coordinator that starts, without what its record does not need. Blocking.

    Raises:
        Conflict: The models are at another address, or another record's are there.
        Obstructed: The address cannot be reached.
    """
    root = config.data_dir / FOLDER
    address = take_address(config.data_dir, config.artifacts, store.setting(SETTING) or "")
    if address is None:
        files = ArtifactFiles(root, config.quota_bytes)
        files.clean(store.referenced_digests())
        return files
    distant = DistantFiles(root, address, config.quota_bytes)
    distant.clean(store.referenced_digests())
    sent = distant.send(store.referenced_digests("version"))
    log.info("models last elsewhere", address=address.url, sent=sent)
    return distant


async def keep_address_tidy(files: ArtifactFiles) -> None:
    """Delete at the address, now and then, what was let go."""
    while isinstance(files, DistantFiles):
        await asyncio.to_thread(files.tidy)
        await asyncio.sleep(TIDY_S)
