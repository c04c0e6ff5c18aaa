"""Whether a simulated run can go on by itself."""

from __future__ import annotations

from covey.coordinator.runs.active_run import ActiveRun
from covey.coordinator.runs.ports import FOREVER_S
from covey.driver.background import Background


def is_stalled(run: ActiveRun | None, background: Background, now: float) -> bool:
    """Whether a run waits for nodes, and nothing is being done that could become an event. `now`: Unix time."""
    if run is None or run.machine is None or not run.driver.is_quiet or not background.is_idle:
        return False
    wake_at = run.machine.wake_at
    return wake_at is None or wake_at > now + FOREVER_S / 10
