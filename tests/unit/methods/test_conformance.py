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


class TestScaffold(MethodConformance):
    name = "scaffold"


class TestScaffoldInAnotherForm(MethodConformance):
    name = "scaffold"
    sections: ClassVar = {
        "exchange": {"codec": "bf16", "payload": "parameters"},
        "server_optimizer": {"name": "momentum"},
    }
