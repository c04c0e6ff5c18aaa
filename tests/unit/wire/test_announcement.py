import json
import os

import pytest

from covey.wire.announcement import announce, withdraw


def test_what_is_announced_is_withdrawn(tmp_path):
    path = tmp_path / "node.json"
    announce(path, listen="127.0.0.1:1", enrol="127.0.0.1:2")
    assert json.loads(path.read_text()) == {"listen": "127.0.0.1:1", "enrol": "127.0.0.1:2", "pid": os.getpid()}
    withdraw(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ['{"listen": "127.0.0.1:1", "pid": 1}', "not JSON", "[]", "{}"])
def test_what_others_wrote_stays(tmp_path, text):
    path = tmp_path / "node.json"
    path.write_text(text)
    withdraw(path)
    assert path.read_text() == text


def test_nothing_to_withdraw(tmp_path):
    withdraw(tmp_path / "node.json")
