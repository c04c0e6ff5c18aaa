"""How a worker's process has died, in words: what a signal, and the kernel's own count, say of it."""

from __future__ import annotations

import signal
from pathlib import Path

VMSTAT = Path("/proc/vmstat")
_MEANINGS = {
    signal.SIGBUS: "a file that it had mapped could not be read or written: is a disk full, or failing?",
    signal.SIGSEGV: "code that is no Python's failed: the task's, or a library's",
    signal.SIGABRT: "code that is no Python's gave up: the task's, or a library's",
    signal.SIGXCPU: "its limit of CPU time was reached",
}


def kills_for_memory() -> int | None:
    """How many processes the kernel has killed for want of memory since this machine's start; None: it does not say."""
    try:
        for line in VMSTAT.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        pass
    return None


def epitaph(code: int, kills_before: int | None, memory_bytes: int | None) -> str:
    """How it ended, why as far as can be known, and what to do.

    Args:
        code: Its exit code, negative for a signal.
        kills_before: `kills_for_memory` when it was started.
        memory_bytes: Its limit of memory of its own; None: it has none.
    """
    if code >= 0:
        return f"ended with exit code {code}"
    killed = f"was killed by signal {-code}"
    if -code != signal.SIGKILL:
        meaning = next((text for number, text in _MEANINGS.items() if number == -code), "")
        return f"{killed} ({meaning})" if meaning else killed
    kills = kills_for_memory()
    if kills is None or kills_before is None:
        cause = "by somebody, or by the system where memory was short"
    elif kills > kills_before:
        cause = "the system has killed a process for want of memory meanwhile"
    else:
        return f"{killed} (by somebody: the system has killed nothing for want of memory)"
    limit = "no limit is set for it" if memory_bytes is None else f"its limit is {memory_bytes / 2**30:.3g} GiB"
    return (
        f"{killed} ({cause}; {limit}: give this machine, or its container, more memory, or choose a smaller "
        "training.batch_size or model)"
    )
