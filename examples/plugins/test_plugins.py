"""The conformance suites that every plug-in of its kind has to pass."""

import json
from pathlib import Path
from typing import ClassVar

from covey.testing.aggregators import AggregatorConformance
from covey.testing.codecs import CodecConformance
from covey.testing.outgoing.filters import OutgoingFilterConformance
from covey.testing.protocols import ProtocolConformance
from covey.testing.topologies import MixingConformance
from covey.testing.library.trackers import TrackerConformance
from covey.testing.training import LocalOptimizerConformance
from covey.trackers.folders import named
from careful import Careful
from int16 import Int16
from known_names import KnownNames
from lines import Lines
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


class TestNeighboursMedian(ProtocolConformance):
    gossip: ClassVar = {
        "protocol": {"name": "neighbours-median", "options": {"pull": 0.5}},
        "topology": {"name": "complete"},
    }


class TestCareful(MixingConformance):
    def make(self):
        return Careful({"warm_up": 4})


class TestKnownNames(OutgoingFilterConformance):
    def make(self):
        return KnownNames({"names": ["weight", "bias"], "examples": 20})


class TestLines(TrackerConformance):
    def make(self):
        return Lines()

    def told(self, where, run):
        curves = {}
        for line in (Path(where) / f"{named(run)}.jsonl").read_text().splitlines()[1:]:
            point = json.loads(line)
            curves.setdefault(point["name"], []).append((point["step"], point["value"]))
        return curves
