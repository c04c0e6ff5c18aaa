"""Code of the users' own that was edited is told apart, and imported anew with what it uses."""

import importlib
import sys

import pytest

from covey.learning.task import TASKS
from covey.user_code import digest as code


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("")
    (tmp_path / "mine" / "layers.py").write_text("WIDTH = 8\n")
    (tmp_path / "beside.py").write_text("SCALE = 1\n")
    (tmp_path / "mine" / "tasks.py").write_text(
        "from mine import layers\nimport torch\nimport beside\nfrom covey.learning.task import Task\n\n"
        "class Mine(Task):\n    def model(self): return torch.nn.Linear(4, layers.WIDTH * beside.SCALE)\n"
        "    def train_data(self, data): return []\n"
    )
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mine", "beside")]:
        del sys.modules[name]
    for known in (code._digests, code._belonging):
        for name in [name for name in known if name.partition(".")[0] in ("mine", "beside")]:
            del known[name]


def width():
    cls = TASKS.load("mine.tasks:Mine", allow_path=True)
    return cls().model().out_features, code.code_digest(cls)


def test_edited_code_is_imported_anew_with_all_that_belongs_to_it(folder):
    assert not code.forget_edited()
    first, digest = width()
    assert (first, len(digest)) == (8, 64)
    assert not code.forget_edited(), "nothing was edited"
    assert width() == (8, digest)
    (folder / "mine" / "layers.py").write_text("WIDTH = 9\n")  # as long as before, and in the same second
    assert code.forget_edited() == {"mine", "mine.layers", "mine.tasks", "beside"}
    second, other = width()
    assert (second, other != digest) == (9, True)
    (folder / "beside.py").write_text("SCALE = 2\n")
    code.forget_edited()
    assert width()[0] == 18
    (folder / "mine" / "layers.py").write_text("WIDTH = 8\n")
    (folder / "beside.py").write_text("SCALE = 1\n")
    code.forget_edited()
    assert width() == (8, digest), "the digest is of the contents"


def test_a_mistake_in_edited_code_is_said_and_can_be_mended(folder):
    width()
    (folder / "beside.py").write_text("SCALE = \n")
    code.forget_edited()
    with pytest.raises(Exception, match="invalid syntax"):
        width()
    (folder / "beside.py").write_text("SCALE = 3\n")
    (folder / "mine" / "layers.py").write_text("WIDTH = 5\n")
    code.forget_edited()
    assert width()[0] == 15


def test_coveys_own_and_installed_modules_are_left_alone():
    from covey.learning.tasks.digits import Digits

    assert len(code.code_digest(Digits)) == 64
    module = importlib.import_module("covey.learning.tasks.digits")
    assert "covey.learning.tasks.digits" not in code.forget_edited()
    assert sys.modules["covey.learning.tasks.digits"] is module


CONSTANT = "from covey.learning.task import Task\nimport torch\n{0}\n\nclass Mine(Task):\n    def model(self):\n{1}"
WAYS = {
    "a constant": ("from beside import SCALE", "        return torch.nn.Linear(4, 8 * SCALE)\n"),
    "within a function": ("", "        import beside\n        return torch.nn.Linear(4, 8 * beside.SCALE)\n"),
    "a constant within a function": (
        "",
        "        from beside import SCALE\n        return torch.nn.Linear(4, 8 * SCALE)\n",
    ),
    "a neighbour": ("from .layers import WIDTH", "        return torch.nn.Linear(4, WIDTH)\n"),
    "all names": ("from mine.layers import *", "        return torch.nn.Linear(4, WIDTH)\n"),
    "in two steps": ("from mine.between import SIZE", "        return torch.nn.Linear(4, SIZE)\n"),
}


@pytest.mark.parametrize("way", WAYS)
def test_however_a_module_is_used_its_edit_counts(folder, way):
    (folder / "mine" / "between.py").write_text("from beside import SCALE\nSIZE = 8 * SCALE\n")
    text = CONSTANT.format(*WAYS[way]) + "    def train_data(self, data): return []\n"
    (folder / "mine" / "tasks.py").write_text(text)
    first, digest = width()
    assert first == 8
    assert (width(), code.forget_edited()) == ((8, digest), frozenset())
    (folder / "beside.py").write_text("SCALE = 2\n")
    (folder / "mine" / "layers.py").write_text("WIDTH = 16\n")
    assert code.forget_edited()
    second, other = width()
    assert (second, other != digest) == (16, True)


def test_a_module_that_was_deleted_is_missed(folder):
    width()
    (folder / "beside.py").unlink()
    assert "beside" in code.forget_edited()
    with pytest.raises(Exception, match="No module named 'beside'"):
        width()
    (folder / "beside.py").write_text("SCALE = 4\n")
    code.forget_edited()
    assert width()[0] == 32
