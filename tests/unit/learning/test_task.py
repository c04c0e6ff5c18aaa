from typing import Any

import pytest
import torch

from covey.errors import PluginError, SpecError
from covey.learning.data import batches
from covey.learning.models.state import layout_of
from covey.learning.task import Task, load_task
from covey.learning.tasks.characters import Characters
from covey.learning.tasks.digits import Digits
from covey.learning.tasks.idx_images import IdxImages
from covey.learning.tasks.synthetic import Synthetic
from covey.spec import TaskSection

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "cls"),
    [("digits", Digits), ("idx-images", IdxImages), ("characters", Characters), ("synthetic", Synthetic)],
)
def test_built_in_tasks_are_registered(name: str, cls: type[Task]) -> None:
    assert type(load_task(TaskSection(name=name))) is cls
    assert layout_of(cls().model()).numel > 0


@pytest.mark.parametrize(
    ("section", "error", "text"),
    [
        (TaskSection(name="no-such"), PluginError, "installed: .*digits"),
        (TaskSection(name="covey.learning.tasks.digits:Digits"), PluginError, "installed:"),
        (TaskSection(name="digits", options={"hiden": 1}), SpecError, r"options\.hiden.*known keys: common, evaluate"),
        (TaskSection(name="digits", options={"hidden": -1}), SpecError, r"task\.options\.hidden.*given: -1"),
        (TaskSection(name="idx-images", options={"model": "vit"}), SpecError, "'mlp' or 'cnn'"),
    ],
)
def test_wrong_tasks_are_refused(section: TaskSection, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        load_task(section)


def test_import_paths_need_permission_and_a_task() -> None:
    name = "covey.learning.tasks.digits:Digits"
    assert isinstance(load_task(TaskSection(name=name), allow_path=True), Digits)
    with pytest.raises(PluginError, match="not a subclass"):
        load_task(TaskSection(name="covey.layout:Layout"), allow_path=True)


def test_collated_batches_keep_their_structure() -> None:
    class Named(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 5

        def __getitem__(self, i: int) -> Any:
            return {"x": torch.full((2,), i), "name": f"row {i}", "pair": (i, [float(i)])}

    first, second = batches(Named(), torch.tensor([4, 0, 2]), 2, CPU)
    assert first["x"].tolist() == [[4, 4], [0, 0]]
    assert first["name"] == ("row 4", "row 0")
    assert second["pair"][0].tolist() == [2]
