from __future__ import annotations

import json

import pytest
import torch

from benchmarks.codecs import main, relative_error
from covey.plugins import installed
from covey.vectors import TensorVector


def test_every_installed_codec_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        assert main(["--d", "3000", "--repeats", "1", "--json"]) == 0
    finally:
        torch.set_num_threads(threads)
    rows = {row["codec"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert set(rows) == {plugin.name for plugin in installed("codec")}
    assert rows["none"]["size"] == 12_000
    assert rows["none"]["relative_error"] == 0
    assert rows["bf16"]["size"] == 6000
    assert 0 < rows["fp16"]["relative_error"] < rows["bf16"]["relative_error"] < rows["int8"]["relative_error"] < 0.01
    assert all(row["encode_mb_s"] > 0 and row["decode_mb_s"] > 0 for row in rows.values())


def test_an_unknown_codec_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--d", "10", "--codecs", "zip"]) == 1
    assert "'zip'" in capsys.readouterr().err


def test_the_error_of_signs_is_that_with_the_best_factor() -> None:
    vector, signs = torch.tensor([3.0, -4.0]), torch.tensor([1.0, -1.0])
    assert relative_error(TensorVector(signs), vector, signs=True) == pytest.approx((0.5 / 25) ** 0.5)
    assert relative_error(TensorVector(signs), vector, signs=False) == pytest.approx((13 / 25) ** 0.5)
