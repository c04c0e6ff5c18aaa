"""The worker of a node's parts in gossip runs: peers wait for each exchange, and must not wait for other training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from covey.node.operator.config import NodeConfig
from covey.worker.client.output import OnOutput, unheard
from covey.worker.client.supervisor import WorkerSupervisor


def worker_of(
    node: NodeConfig,
    name: str,
    folder: Path,
    on_replaced: Callable[[], None] = lambda: None,
    on_output: OnOutput = unheard,
) -> WorkerSupervisor:
    """A worker for one node's parts in gossip runs.

    Args:
        node: The node's settings.
        name: The node's.
        folder: For the worker's private files.
        on_replaced: Told when one takes the place of one that died.
        on_output: Told what it prints.
    """
    return WorkerSupervisor(
        folder,
        device=node.device,
        log_format=node.log_format,
        on_replaced=on_replaced,
        stall_s=node.settings.limits.stall_s,
        log_name=f"the log of node {name}",
        confinement=node.confinement,
        on_output=on_output,
    )
