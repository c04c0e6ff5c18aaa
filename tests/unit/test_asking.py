"""A program that imports plug-ins is asked one question; whatever it prints costs the asker nothing."""

from __future__ import annotations

import contextlib
import os
import tracemalloc

import pytest

from covey.errors import PluginError
from covey.testing.launch.forks import forked_workers
from covey.user_code.asking import ask

PROGRAM = """
import os, sys, time
{at_import}
from covey.user_code.asking import respond
respond(lambda question: {{"twice": 2 * question}})
"""


@pytest.fixture(params=[contextlib.nullcontext, forked_workers], ids=["executed", "forked"])
def program(request, tmp_path, monkeypatch):
    """Writes a program of this name, with what it does as it imports plug-ins; gives its name."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    def write(at_import):
        (tmp_path / "asked_here.py").write_text(PROGRAM.format(at_import=at_import))
        return "asked_here"

    with request.param():
        yield write


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_is_printed_is_for_people_and_is_not_kept(program, capfd, stream):
    name = program(f"sys.{stream}.write('{{\"twice\": 1}}' + 'x' * (8 << 20) + 'the end'); sys.{stream}.flush()")
    tracemalloc.start()
    try:
        assert ask(name, 21, 60.0) == {"twice": 42}
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    is_passed_on = capfd.readouterr().err.endswith("the end")
    assert is_passed_on


@pytest.mark.parametrize(
    ("at_import", "message"),
    [
        ("raise RuntimeError('broken')", "exit code 1; see above"),
        ("os._exit(0)", "exit code 0; see above"),
        ("time.sleep(60)", "no answer in 1 s"),
    ],
)
def test_a_program_that_gives_no_answer_is_named(program, at_import, message):
    with pytest.raises(PluginError, match=message):
        ask(program(at_import), 1, 1.0 if "sleep" in at_import else 60.0)
