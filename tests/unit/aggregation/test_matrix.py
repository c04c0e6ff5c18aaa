from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from covey.aggregation.contract import AggregationContext, BlockRule
from covey.aggregation.krum import Krum
from covey.aggregation.matrix import Row, UpdateMatrix, finite
from covey.codecs.none import NoCodec
from covey.errors import LayoutError
from covey.layout import Layout, TensorSpec
from covey.vectors import ComputedVector, TensorVector

LAYOUT = Layout.of([TensorSpec("body.w", "float32", (3, 4)), TensorSpec("head.w", "bfloat16", (5,))])


def rows_of(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def squared_distances(gram: Tensor) -> Tensor:
    return gram.diagonal()[:, None] + gram.diagonal()[None, :] - 2 * gram


class Halved(ComputedVector):
    """A codec's reader that must decode: float16 in memory."""

    def __init__(self, values: Tensor) -> None:
        super().__init__(len(values))
        self._half = values.half()

    def decode(self, columns: slice, out: Tensor) -> None:
        out.copy_(self._half[columns])


def test_shape_nodes_weights_rows() -> None:
    rows = rows_of(3, 17)
    matrix = UpdateMatrix.of(rows, nodes=["a", "b", "c"], weights=[0.2, 0.3, 0.5], layout=LAYOUT)
    assert (matrix.n, matrix.d, matrix.nodes) == (3, 17, ("a", "b", "c"))
    assert matrix.weights.dtype == torch.float64
    assert matrix.weights.tolist() == [0.2, 0.3, 0.5]
    assert torch.equal(matrix.dense(), rows)
    assert torch.equal(matrix.row(1), rows[1])


@pytest.mark.parametrize("width", [1, 5, 17, 100])
def test_blocks_cover_all_columns_in_one_slab(width: int) -> None:
    rows = rows_of(3, 17)
    seen, memory = torch.zeros(3, 17), set()
    for columns, slab in UpdateMatrix.of(rows).blocks(width):
        assert slab.is_contiguous()
        seen[:, columns] += slab
        memory.add(slab.data_ptr())
        slab.zero_()
    assert torch.equal(seen, rows)
    assert len(memory) == 1


def test_weighted_sum_over_decoded_rows_in_row_order() -> None:
    rows = rows_of(4, 1000).half().float()
    matrix = UpdateMatrix([Row(f"n{i}", 0.25, Halved(row)) for i, row in enumerate(rows)])
    weights = torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64)
    expected = (weights[:, None] * rows.double()).sum(0).float()
    torch.testing.assert_close(matrix.weighted_sum(weights).dense(64), expected, rtol=1e-6, atol=1e-6)


def test_a_row_of_weight_zero_is_not_read() -> None:
    rows = torch.stack([torch.ones(8), torch.full((8,), torch.nan)])
    weights = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert torch.equal(UpdateMatrix.of(rows).weighted_sum(weights).dense(), torch.ones(8))
    assert torch.equal(UpdateMatrix.of(rows).weighted_sum(torch.zeros(2)).dense(), torch.zeros(8))


def test_weighted_sum_wants_a_weight_for_each_row() -> None:
    with pytest.raises(LayoutError, match="2 rows need 2 weights"):
        UpdateMatrix.of(rows_of(2, 3)).weighted_sum(torch.ones(3))


def test_block_rule_may_overwrite_its_slab_but_not_the_rows() -> None:
    rows = rows_of(5, 100)

    def middle(slab: Tensor) -> Tensor:
        slab.copy_(slab.sort(0).values)
        return slab[2]

    median = BlockRule(UpdateMatrix.of(rows.clone()), middle)
    assert torch.equal(median.dense(7), rows.median(0).values)
    assert torch.equal(median.dense(100), rows.median(0).values)


def test_gram_is_that_of_float64() -> None:
    rows = rows_of(6, 40_000) + 0.5
    gram = UpdateMatrix.of(rows).gram()
    exact = rows.double() @ rows.double().T
    assert gram.dtype == torch.float64
    assert torch.equal(gram, gram.T)
    torch.testing.assert_close(gram, exact, rtol=1e-6, atol=0)


def test_near_rows_have_accurate_distances_beside_a_huge_one() -> None:
    rows = rows_of(1, 5000).repeat(5, 1)
    rows[1:4] += 1e-6 * rows_of(3, 5000, seed=1)
    rows[4] = 1e7 * rows_of(1, 5000, seed=2)
    measured = squared_distances(UpdateMatrix.of(rows).gram())
    exact = (rows[:, None].double() - rows[None].double()).square().sum(2)
    # A distance of 1e-6 norms is 1e-12 of the squared norms: float64 keeps four of its digits.
    torch.testing.assert_close(measured[:4, :4], exact[:4, :4], rtol=1e-3, atol=0)
    torch.testing.assert_close(measured[4], exact[4], rtol=1e-6, atol=0)


def test_two_groups_of_near_rows_are_each_measured() -> None:
    ends = rows_of(2, 3000)
    rows = torch.stack([ends[0], ends[1], ends[0], ends[1], ends[0]])
    rows[2:] += 1e-4 * rows_of(3, 3000, seed=4)
    measured = squared_distances(UpdateMatrix.of(rows).gram())
    exact = (rows[:, None].double() - rows[None].double()).square().sum(2)
    torch.testing.assert_close(measured, exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("scale", [1e-15, 1e-20, 1e-22, 1e-25, 1e-37])
def test_distances_of_rows_whose_squares_underflow(scale: float) -> None:
    rows = torch.randn(7, 3000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rows[0] *= 100
    short = (rows * scale).float()
    matrix, exact = UpdateMatrix.of(short), torch.cdist(short.double(), short.double()).square()
    torch.testing.assert_close(squared_distances(matrix.gram()), exact, rtol=1e-5, atol=0)
    torch.testing.assert_close(matrix.squared_norms(), short.double().square().sum(1), rtol=1e-5, atol=0)
    torch.testing.assert_close(matrix.products(short[1]), short.double() @ short[1].double(), rtol=1e-3, atol=0)
    # The outlier is in the first row, which a rule that saw no distances would take.
    chosen = Krum({"f": 1}).aggregate(matrix, {}, AggregationContext(round=1, seed=1))
    assert not chosen.verdicts[0].accepted


def test_rows_of_zeros_cost_no_second_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(4, 500)
    rows[2] = 0
    asked: list[torch.dtype] = []
    once = UpdateMatrix._grams

    def noted(self: UpdateMatrix, dtype: torch.dtype) -> torch.Tensor:
        asked.append(dtype)
        return once(self, dtype)

    monkeypatch.setattr(UpdateMatrix, "_grams", noted)
    assert UpdateMatrix.of(rows).gram()[2].tolist() == [0, 0, 0, 0]
    assert asked == [torch.float32]


def test_gram_of_identical_rows_and_of_rows_beyond_float32_squares() -> None:
    same = squared_distances(UpdateMatrix.of(rows_of(1, 999).repeat(3, 1)).gram())
    assert torch.equal(same, torch.zeros(3, 3, dtype=torch.float64))
    large = rows_of(2, 100) * 1e25
    exact = large.double() @ large.double().T
    torch.testing.assert_close(UpdateMatrix.of(large).gram(), exact, rtol=1e-9, atol=0)


@pytest.mark.parametrize("n", [1, 16, 17, 40])
def test_gram_of_any_number_of_rows_is_read_once(n: int) -> None:
    rows = rows_of(n, 70_000)
    reads = []

    class Counted(TensorVector):
        def read(self, columns: slice, out: Tensor | None = None) -> Tensor:
            reads.append(columns)
            return super().read(columns, out)

    matrix = UpdateMatrix([Row(f"n{i}", 1 / n, Counted(row)) for i, row in enumerate(rows)])
    gram = matrix.gram()
    torch.testing.assert_close(gram, rows.double() @ rows.double().T, rtol=1e-5, atol=0.1)
    assert len(reads) == 2 * n
    gram.zero_()
    assert matrix.gram()[0, 0] > 0
    assert len(reads) == 2 * n


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e25])
def test_norms_and_products_are_those_of_float64(scale: float) -> None:
    rows, vector = rows_of(5, 70_000) * scale, rows_of(1, 70_000, seed=1)[0] * scale
    matrix, wide = UpdateMatrix.of(rows), rows.double()
    torch.testing.assert_close(matrix.squared_norms(), wide.square().sum(1), rtol=1e-5, atol=0)
    found, exact = matrix.products(vector), wide @ vector.double()
    torch.testing.assert_close(found / scale**2, exact / scale**2, rtol=1e-5, atol=0.1)
    with pytest.raises(LayoutError, match="rows of 70000 elements"):
        matrix.products(vector[:-1])


def test_extended_has_further_rows_of_no_weight() -> None:
    rows, vector = rows_of(3, 50), rows_of(1, 50, seed=1)[0]
    matrix = UpdateMatrix.of(rows).extended([vector, 2 * vector])
    assert torch.equal(matrix.dense(), torch.cat([rows, vector[None], 2 * vector[None]]))
    assert matrix.weights.tolist() == pytest.approx([1 / 3] * 3 + [0, 0])
    assert matrix.nodes[:3] == ("node-0", "node-1", "node-2")
    with pytest.raises(LayoutError, match="49 elements"):
        UpdateMatrix.of(rows).extended([vector[1:]])


def test_signs_are_packed_lowest_bit_first_with_zero_as_positive() -> None:
    rows = torch.tensor([[1.0, -1.0, 0.0, -2.0, 5.0, -0.5, -0.5, -0.5, 3.0, -1.0]])
    packed = UpdateMatrix.of(rows).signs(slice(0, 10))
    assert packed.tolist() == [[0b00010101, 0b01]]
    assert UpdateMatrix.of(rows).signs(slice(4, 9)).tolist() == [[0b10001]]


def test_slice_takes_tensors_by_name() -> None:
    rows = rows_of(2, 17)
    matrix = UpdateMatrix.of(rows, layout=LAYOUT)
    assert torch.equal(matrix.slice(1, r"^head\."), rows[1, 12:])
    assert torch.equal(matrix.slice(0, r"\.w$"), rows[0])
    assert matrix.slice(0, "absent").shape == (0,)
    with pytest.raises(LayoutError, match="no layout"):
        UpdateMatrix.of(rows).slice(0, "head")


def test_rows_that_do_not_belong_together_are_refused() -> None:
    first, second = TensorVector(torch.ones(3)), TensorVector(torch.ones(4))
    with pytest.raises(LayoutError, match="'b' has 4 elements"):
        UpdateMatrix([Row("a", 1, first), Row("b", 1, second)])
    with pytest.raises(LayoutError, match="two rows"):
        UpdateMatrix([Row("a", 1, first), Row("a", 1, first)])
    with pytest.raises(LayoutError, match="their layout has 17"):
        UpdateMatrix([Row("a", 1, first)], LAYOUT)
    with pytest.raises(LayoutError, match="float32"):
        UpdateMatrix.of(torch.ones(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("at", [0, 63, 64, 99])
def test_a_row_with_one_bad_element_is_not_finite(bad: float, at: int) -> None:
    values = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert finite(Row("a", 1.0, TensorVector(values)), width=64)
    values[at] = bad
    assert not finite(Row("a", 1.0, TensorVector(values)), width=64)


def test_finite_sees_through_overflow_and_cancelling_infinities() -> None:
    assert finite(Row("a", 1.0, TensorVector(torch.full((100,), 3e38))))
    assert not finite(Row("a", 1.0, TensorVector(torch.tensor([float("inf"), float("-inf")]))))


def test_rows_in_mapped_files_are_read_where_they_lie(tmp_path: Path) -> None:
    rows = rows_of(3, 5000)
    readers = []
    for i, row in enumerate(rows):
        path = tmp_path / str(i)
        path.write_bytes(row.numpy().tobytes())
        readers.append(NoCodec().reader(torch.from_file(str(path), size=5000, dtype=torch.float32), 5000))
    matrix = UpdateMatrix([Row(f"n{i}", 1 / 3, reader) for i, reader in enumerate(readers)])
    direction = matrix.weighted_sum(matrix.weights)
    torch.testing.assert_close(direction.dense(300), rows.mean(0), rtol=1e-6, atol=1e-6)
    assert matrix.row(0).data_ptr() == readers[0].read(slice(0, 1)).data_ptr()


def test_flat_is_the_tensor_and_refuses_others() -> None:
    tensor = torch.arange(6.0)
    assert torch.equal(TensorVector(tensor).read(slice(2, 4)), torch.tensor([2.0, 3.0]))
    assert torch.equal(TensorVector(tensor).dense(4), tensor)
    with pytest.raises(LayoutError, match="vector of float32"):
        TensorVector(torch.ones(2, 2))
    with pytest.raises(ValueError, match="at least one element"):
        TensorVector(tensor).dense(0)
