"""Room for all files of a job, or for none."""

from __future__ import annotations

import pytest

from covey.errors import DiskFull
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.files.room import scratch_files


def test_all_files_have_names_of_their_own(tmp_path):
    made = scratch_files(ArtifactFiles(tmp_path), {"a": 10, "b": 0})
    assert list(made) == ["a", "b"]
    assert len({path.name for path in made.values()}) == 2


def test_where_one_does_not_fit_none_is_counted(tmp_path):
    files = ArtifactFiles(tmp_path, quota_bytes=100)
    for _ in range(3):
        with pytest.raises(DiskFull, match="would exceed the quota of 100 bytes"):
            scratch_files(files, {"a": 60, "b": 60})
        assert files.bytes_used == 0
    assert scratch_files(files, {"a": 60, "b": 40})
