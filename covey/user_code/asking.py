"""A program of its own that imports what users wrote, and is asked one question about it.

Daemons and commands import no plug-in: it may print, take long, or end the process. What it prints passes on to the
asker's standard error, and none of it is kept; the answer comes in a file that nothing else is written to.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from covey.errors import PluginError

MAX_ANSWER_BYTES = 16 << 20


def ask(module: str, question: Any, timeout_s: float) -> Any:
    """The answer, as JSON, of the program `module` (whose `main` calls `respond`).

    Raises:
        PluginError: It ended, or its time was up, before it answered.
    """
    with tempfile.TemporaryFile() as file:
        command = [sys.executable, "-P", "-m", module, str(file.fileno())]
        try:
            done = subprocess.run(
                command,
                input=json.dumps(question).encode(),
                stdout=2,  # ours; what is printed is for people
                pass_fds=[file.fileno()],
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PluginError(f"the program that imports plug-ins gave no answer in {timeout_s:g} s") from None
        size_bytes = file.seek(0, os.SEEK_END)
        if done.returncode != 0 or not size_bytes:
            raise PluginError(f"the program that imports plug-ins ended with exit code {done.returncode}; see above")
        if size_bytes > MAX_ANSWER_BYTES:
            raise PluginError(f"what plug-ins say of themselves is longer than {MAX_ANSWER_BYTES >> 20} MiB")
        file.seek(0)
        return json.load(file)


def respond(answer: Callable[[Any], Any]) -> None:
    """In the program that is asked: read the question, and leave what `answer` makes of it."""
    text = json.dumps(answer(json.load(sys.stdin)))
    with open(int(sys.argv[1]), "w", encoding="utf-8") as file:
        file.write(text)
