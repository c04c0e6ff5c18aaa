"""The conformance suites that every aggregator, codec and local optimizer has to pass."""

from covey.testing.aggregators import AggregatorConformance
from covey.testing.codecs import CodecConformance
from covey.testing.training import LocalOptimizerConformance
from int16 import Int16
from lion import Lion
from meamed import MeaMed


class TestMeaMed(AggregatorConformance):
    def make(self):
        return MeaMed({"f": 2})


class TestInt16(CodecConformance):
    def make(self):
        return Int16()


class TestLion(LocalOptimizerConformance):
    def make(self):
        return Lion({"beta2": 0.95})
