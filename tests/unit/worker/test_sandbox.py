"""What a confined process cannot read, however it tries; each try is made in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
from pathlib import Path
from covey.worker.program import sandbox
folder, how, user = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
if user != os.getuid():
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    sandbox._libc.prctl(4, 1, 0, 0, 0)  # as a process that was never root
secret = folder / "identity" / "tls.key"
try:
    if how == "namespaces":
        sandbox._cover([secret.parent])
    else:
        sandbox._allow_all_but([secret.parent], folder)
except OSError as error:
    sys.exit(f"skip: {error}")

def tried(name, path):
    try:
        print(name, Path(path).read_text())
    except OSError as error:
        print(name, "refused")

tried("plain", secret)
tried("link", folder / "link")
tried("parent", f"/proc/{os.getppid()}/root{secret}")
tried("environment", f"/proc/{os.getppid()}/environ")
tried("data", folder / "data" / "table.csv")
(folder / "data" / "made").write_text("mine")
tried("made", folder / "data" / "made")
for undo in (
    lambda: sandbox._libc.umount2(os.fsencode(secret.parent), 0),
    lambda: sandbox._libc.umount2(os.fsencode(secret.parent), 2),
    lambda: sandbox._libc.unshare(sandbox._CLONE_NEWUSER | sandbox._CLONE_NEWNS),
    lambda: sandbox._libc.umount2(os.fsencode(secret.parent), 2),
    lambda: sandbox._libc.mount(b"/", b"/mnt", None, 4096, None),
):
    undo()
tried("undone", secret)
tried("copied", f"/mnt{secret}")
"""
REFUSED = {"plain": "refused", "link": "refused", "parent": "refused", "undone": "refused", "copied": "refused"}


@pytest.fixture
def folder():
    """Readable for everybody, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made)
        path.chmod(0o777)
        for name in ("identity", "data"):
            (path / name).mkdir()
            (path / name).chmod(0o777)
        (path / "identity" / "tls.key").write_text("secret")
        (path / "data" / "table.csv").write_text("numbers")
        (path / "link").symlink_to(path / "identity" / "tls.key")
        yield path


@pytest.mark.parametrize("how", ["namespaces", "Landlock"])
@pytest.mark.parametrize("user", [0, 65534], ids=["root", "nobody"])
def test_a_hidden_folder_cannot_be_read_in_any_way(folder, how, user):
    if os.getuid() and user != os.getuid():
        user = os.getuid()
    command = [sys.executable, "-c", PROGRAM, str(folder), how, str(user)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    if done.stderr.startswith("skip: "):
        pytest.skip(f"this machine does not allow it: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    said = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    assert said.items() >= REFUSED.items()
    assert (said["data"], said["made"]) == ("numbers", "mine")
    assert said["environment"] == "refused"
    assert (folder / "identity" / "tls.key").read_text() == "secret"
