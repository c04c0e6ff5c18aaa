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
from typing import Any, Protocol

from covey.errors import PluginError

MAX_ANSWER_BYTES = 16 << 20


class RunProgram(Protocol):
    """Runs a program to its end."""

    def __call__(self, module: str, question: bytes, answer: int, timeout_s: float) -> int:
        """With the question as its standard input, and this file for its answer; the exit code.

        Raises:
            subprocess.TimeoutExpired: It took longer, and was killed.
        """


def _execute(module: str, question: bytes, answer: int, timeout_s: float) -> int:
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, str(answer)],
        input=question,
        stdout=2,  # ours; what is printed is for people
        pass_fds=[answer],
        timeout=timeout_s,
        check=False,
    )
    return done.returncode


run_program: RunProgram = _execute
"""How programs are run; `covey.testing.launch.forks` has a quicker way."""


def ask(module: str, question: Any, timeout_s: float) -> Any:
    """The answer, as JSON, of the program `module` (whose `main` calls `respond`).

    Raises:
        PluginError: It ended, or its time was up, before it answered.
    """
    with tempfile.TemporaryFile() as file:
        try:
            code = run_program(module, json.dumps(question).encode(), file.fileno(), timeout_s)
        except subprocess.TimeoutExpired:
            raise PluginError(f"the program that imports plug-ins gave no answer in {timeout_s:g} s") from None
        size_bytes = file.seek(0, os.SEEK_END)
        if code != 0 or not size_bytes:
            raise PluginError(f"the program that imports plug-ins ended with exit code {code}; see above")
        if size_bytes > MAX_ANSWER_BYTES:
            raise PluginError(f"what plug-ins say of themselves is longer than {MAX_ANSWER_BYTES >> 20} MiB")
        file.seek(0)
        return json.load(file)


def respond(answer: Callable[[Any], Any]) -> None:
    """In the program that is asked: read the question, and leave what `answer` makes of it."""
    text = json.dumps(answer(json.load(sys.stdin)))
    with open(int(sys.argv[1]), "w", encoding="utf-8") as file:
        file.write(text)
