"""How much disk peers' bodies may take on this node: an operator's quota for what comes, and waits to be mixed in."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import structlog

from covey.artifact import Artifact
from covey.errors import NotReady
from covey.node.peers.ports import Files

log = structlog.get_logger(room="peers")


@dataclass(frozen=True)
class Quota:
    """What bodies of peers may take.

    Attributes:
        most_bytes: In all; infinite: what is free on the disk.
        kept_free_bytes: Of it, for bodies that the node waits for: those of later steps leave so much.
        is_needed: Whether the node may wait for bodies of a step now.
        waiting: Sizes of bodies that are on record here at the start, by digest.
        stays: Whether a file stays for good, whoever sent it: a model that the node keeps counts no more.
    """

    most_bytes: float = math.inf
    kept_free_bytes: int = 0
    is_needed: Callable[[int], bool] = lambda step: True
    waiting: Mapping[str, int] = field(default_factory=dict)
    stays: Callable[[str], bool] = lambda digest: False


class Room:
    """What bodies of peers take, against a quota.

    A body counts from the moment that it is let in until it is gone from the disk: the receiver drops it when it is
    mixed in, and a newer publication is on record. What broken transfers left makes room before anything is refused.

    Args:
        files: Where bodies come.
        quota: What they may take.
    """

    def __init__(self, files: Files, quota: Quota) -> None:
        self._files, self._quota = files, quota
        self._bodies = dict(quota.waiting)
        self._is_short = False

    def require(self, body: Artifact, step: int, coming: Collection[str]) -> None:
        """Let a body in. Blocking.

        Args:
            body: It is not here yet.
            step: In which it was published.
            coming: Digests of the others that are on their way just now.

        Raises:
            NotReady: There is no room for it now; its sender keeps it, and offers it again.
        """
        quota = self._quota
        if math.isinf(quota.most_bytes):
            return
        self._bodies = {digest: size for digest, size in self._bodies.items() if digest in coming or self._has(digest)}
        used = sum(size for digest, size in self._bodies.items() if digest != body.digest)
        most = quota.most_bytes - (0 if quota.is_needed(step) else quota.kept_free_bytes)
        if used + body.size_bytes > most:
            self._refuse(used, body.size_bytes)
        self._is_short = False
        broken = self._files.unfinished() - {*coming, body.digest}
        if used + body.size_bytes * (1 + len(broken)) > most:
            self._files.forget(broken)
        self._bodies[body.digest] = body.size_bytes

    def _refuse(self, used: int, size: int) -> None:
        if not self._is_short:
            text = "a peer's body is refused for now: no room within [peers] quota_gib of node.toml"
            log.warning(text, used_bytes=used, body_bytes=size, quota_bytes=self._quota.most_bytes)
        self._is_short = True
        raise NotReady(
            f"no room: bodies of peers take {used} bytes here, and its quota leaves none for {size} more now"
        )

    def _has(self, digest: str) -> bool:
        return not self._quota.stays(digest) and self._files.path(digest).exists()
