"""One daemon a data directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from covey.errors import Conflict
from covey.storage.files.data_lock import LOCK_FILE, held


def test_a_second_holder_is_told_of_the_first_and_the_lock_ends_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    second = held(folder, "node")
    with held(folder, "node"), pytest.raises(Conflict, match=rf"process {os.getpid()}\); stop that one"):
        second.__enter__()
    assert (folder / LOCK_FILE).exists()
    with held(folder, "coordinator"):
        assert (folder / LOCK_FILE).read_text().strip() == str(os.getpid())
