from __future__ import annotations

import torch

from covey.aggregation.gram import distances_to, least, mean_of, numbers_of, squared_distances
from covey.aggregation.matrix import UpdateMatrix


def rows_of(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_squared_distances_are_those_of_the_rows() -> None:
    rows = rows_of(7, 500)
    found = squared_distances(UpdateMatrix.of(rows).gram())
    naive = [[float((a.double() - b.double()).square().sum()) for b in rows] for a in rows]
    torch.testing.assert_close(found, torch.tensor(naive, dtype=torch.float64), rtol=1e-5, atol=0)
    assert torch.equal(found, found.T)
    assert (squared_distances(UpdateMatrix.of(rows[:1].repeat(4, 1)).gram()) == 0).all()


def test_distances_to_any_combination() -> None:
    rows = rows_of(5, 300)
    weights = torch.tensor([0.5, -1.0, 2.0, 0.0, 0.25], dtype=torch.float64)
    target = (weights[:, None] * rows.double()).sum(0)
    found = distances_to(UpdateMatrix.of(rows).gram(), weights)
    torch.testing.assert_close(found, (rows.double() - target).norm(dim=1), rtol=1e-6, atol=0)


def test_distances_to_a_combination_of_near_rows_beside_a_huge_one() -> None:
    rows = rows_of(1, 2000).repeat(5, 1)
    rows[:4] += 1e-3 * rows_of(4, 2000, seed=1)
    rows[4] = 1e7 * rows_of(1, 2000, seed=2)
    weights = torch.tensor([0.25, 0.25, 0.25, 0.25, 0.0], dtype=torch.float64)
    exact = (rows.double() - rows[:4].double().mean(0)).norm(dim=1)
    torch.testing.assert_close(distances_to(UpdateMatrix.of(rows).gram(), weights), exact, rtol=1e-4, atol=0)


def test_distances_under_a_common_offset_are_not_lost() -> None:
    # Products of such rows agree in their first nine digits; float32 has seven.
    rows = 100 + 1e-3 * rows_of(30, 3000)
    exact = (rows[:, None].double() - rows[None].double()).square().sum(2)
    found = squared_distances(UpdateMatrix.of(rows).gram())
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=0)


def test_least_takes_equal_scores_in_row_order() -> None:
    scores = torch.tensor([3.0, 1.0, 2.0, 1.0, 1.0])
    assert least(scores, 4) == [1, 3, 4, 2]


def test_mean_of_nothing_is_zero_and_rejects_all() -> None:
    updates = UpdateMatrix.of(torch.ones(2, 3))
    result = mean_of(updates, [], [{"score": 1.0}, {}], "far")
    assert torch.equal(result.direction.dense(), torch.zeros(3))
    assert [(v.accepted, v.reason, v.share, v.numbers) for v in result.verdicts] == [
        (False, "far", 0.0, {"score": 1.0}),
        (False, "far", 0.0, {}),
    ]


def test_numbers_leave_out_what_is_not_finite() -> None:
    found = numbers_of(a=torch.tensor([1.0, float("-inf")]), b=torch.tensor([float("nan"), 2.0]))
    assert found == [{"a": 1.0}, {"b": 2.0}]
