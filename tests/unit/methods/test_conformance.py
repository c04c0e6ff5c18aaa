"""Every installed method passes the suite."""

from __future__ import annotations

from typing import ClassVar

from covey.testing.methods import MethodConformance


class TestAveraging(MethodConformance):
    name = "none"


class TestAveragingWithoutBuffers(MethodConformance):
    name = "none"
    sections: ClassVar = {
        "task": {"name": "covey.testing.method_rounds:PlainExample"},
        "exchange": {"worker_momentum": 0.5},
    }


class TestFedProx(MethodConformance):
    name = "fedprox"
    options: ClassVar = {"mu": 0.5}


class TestFedBN(MethodConformance):
    name = "fedbn"


class TestFedEnsemble(MethodConformance):
    name = "fedensemble"


class TestFedDistill(MethodConformance):
    name = "feddistill"


class TestFedDistillPlus(MethodConformance):
    name = "feddistill-plus"


class TestScaffold(MethodConformance):
    name = "scaffold"


class TestLsgd(MethodConformance):
    name = "lsgd"
    options: ClassVar = {"groups": 2, "global_every": 2, "step_pull": 0.05, "audit": True}


class TestCodistill(MethodConformance):
    name = "codistill"
    options: ClassVar = {"classes": 2, "learn_common": True, "label_smoothing": 0.1}
    sections: ClassVar = {"training": {"learning_rate": 0.1, "batch_size": 8, "local_steps": 3}}


class TestScaffoldInAnotherForm(MethodConformance):
    name = "scaffold"
    sections: ClassVar = {
        "exchange": {"codec": "bf16", "payload": "parameters"},
        "server_optimizer": {"name": "momentum"},
    }


class TestScaleShift(MethodConformance):
    name = "scale-shift"


class TestStableNet(MethodConformance):
    name = "stablenet"
    options: ClassVar = {"steps": 3, "penalty": 0.1, "functions": 2}


class TestPaws(MethodConformance):
    name = "paws"
    options: ClassVar = {"labelled": 3, "support": 2, "bank": 2}


class TestSunCEt(MethodConformance):
    name = "suncet"
    options: ClassVar = {"labelled": 3, "support": 2}
