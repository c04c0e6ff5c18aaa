import math

import pytest
import torch

from covey.errors import TaskError
from covey.learning.statistics import Stat, binned_auroc, confusion, merge
from covey.metrics import merged, ratios


def test_merged_statistics_are_of_all_together() -> None:
    both = merge({"loss": Stat(2.0, 4), "a": Stat(1, 1)}, {"loss": Stat(1.0, 2), "b": Stat(3, 1)})
    assert both == {"loss": Stat(3.0, 6), "a": Stat(1, 1), "b": Stat(3, 1)}
    assert both["loss"].ratio == 0.5


def test_json_round_trip() -> None:
    assert Stat.from_json(Stat(1.5, 3).to_json()) == Stat(1.5, 3)
    assert math.isnan(Stat(0.0, 0).ratio)


@pytest.mark.parametrize("value", [[1.0], [1, 2, 3], ["a", "b"], None])
def test_other_json_is_refused(value: list[float]) -> None:
    with pytest.raises(TaskError, match="total, count"):
        Stat.from_json(value)


def test_an_area_under_the_curve_is_merged_over_batches_and_nodes_with_its_error():
    generator = torch.Generator().manual_seed(1)
    targets = torch.randint(0, 2, (400,), generator=generator)
    scores = (targets * 0.3 + torch.rand(400, generator=generator) * 0.7).clamp(0, 1)
    better = (scores[targets == 1][:, None] > scores[targets == 0]).double().mean().item()
    batches = [merge(binned_auroc(scores[a : a + 50], targets[a : a + 50]), {}) for a in range(0, 400, 50)]
    first, second = merge(merge(batches[0], batches[1]), batches[2]), batches[3]
    for batch in batches[4:]:
        second = merge(second, batch)
    told = [(name, {k: stat.to_json() for k, stat in stats.items()}) for name, stats in (("a", first), ("b", second))]
    found = merged(told)
    assert set(found) == {"auroc", "auroc-error"}
    assert abs(float(found["auroc"]) - better) <= float(found["auroc-error"]) < 0.02
    assert ratios({key: (stat.total, stat.count) for key, stat in merge(first, second).items()}) == found
    apart = binned_auroc(torch.tensor([0.1, 0.9]), torch.tensor([0, 1]))
    assert merged([("n0", {k: s.to_json() for k, s in apart.items()})]) == {"auroc": 1.0, "auroc-error": 0.0}
    one = {k: s.to_json() for k, s in binned_auroc(torch.rand(3), torch.ones(3)).items()}
    assert merged([("n0", one)]) == {"auroc": "all examples are of one class"}
    with pytest.raises(TaskError, match="1 to 80 bins"):
        binned_auroc(scores, targets, bins=1000)


def test_a_confusion_matrix_is_shares_of_the_true_class():
    stats = confusion(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0, 1, 1]), 3)
    assert {name: stat.ratio for name, stat in stats.items() if stat.total} == {
        "confusion/0-0": 0.5,
        "confusion/0-1": 0.5,
        "confusion/1-1": 0.5,
        "confusion/1-2": 0.5,
    }
    assert len(stats) == 6
    assert merge(stats, stats)["confusion/0-1"] == Stat(2, 4)
    with pytest.raises(TaskError, match="1 to 9 classes"):
        confusion(torch.zeros(1), torch.zeros(1), 10)
