"""Records the events of a node's machine of assignments."""

from __future__ import annotations

import time
from pathlib import Path

from covey import artifact, messages, parts
from covey.driver.event_log import EventLog
from covey.machines.values import ValueTable
from covey.node.assignments import events, machine

KIND = "node"
VALUES = ValueTable(events, machine, messages, artifact, parts, longest_bytes=256)
"""The machine's classes. Contents of files are left out of a log."""


def assignments_log(folder: Path) -> EventLog:
    """The log of a node's assignments in a folder, `assignments.jsonl`."""
    return EventLog(folder, KIND, "assignments", VALUES, time.time)
