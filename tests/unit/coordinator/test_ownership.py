from __future__ import annotations

import pytest

from coordinator.ownership import check_record, note_record
from covey.errors import Conflict


def test_a_new_directory_takes_any_record(tmp_path):
    check_record(tmp_path, 0)


def test_the_same_record_and_a_newer_copy_of_it_are_taken(tmp_path):
    note_record(tmp_path, 4)
    check_record(tmp_path, 4)
    check_record(tmp_path, 6)


def test_an_empty_or_older_record_is_refused_however_often_it_comes(tmp_path):
    note_record(tmp_path, 4)
    for number in (0, 3, 3):
        with pytest.raises(Conflict, match=r"an old copy of it \(lease number .*is --store \(COVEY_STORE\) missing"):
            check_record(tmp_path, number)
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
