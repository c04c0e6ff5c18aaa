"""They pass the suite of methods."""

from __future__ import annotations

from typing import ClassVar

from covey.testing.methods import MethodConformance


class TestMemory(MethodConformance):
    name = "memory"
    options: ClassVar = {"capacity": 3, "aggregate": "mean"}
    sections: ClassVar = {"training": {"optimizer": "adam", "learning_rate": 0.01, "batch_size": 8, "local_epochs": 1}}


class TestFedDyn(MethodConformance):
    name = "feddyn"
