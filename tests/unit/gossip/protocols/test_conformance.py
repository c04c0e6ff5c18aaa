"""Covey's own protocols keep what every protocol must keep."""

from typing import ClassVar

from covey.testing.protocols import ProtocolConformance

MH = {"name": "metropolis-hastings"}
COMPLETE = {"name": "complete"}


class TestSgp(ProtocolConformance):
    gossip: ClassVar = {"protocol": "sgp"}


class TestOverlapped(ProtocolConformance):
    gossip: ClassVar = {"protocol": "sgp", "overlap": 2}


class TestAgp(ProtocolConformance):
    gossip: ClassVar = {"protocol": "agp", "rate_correction": "none"}


class TestAdPsgd(ProtocolConformance):
    gossip: ClassVar = {"protocol": "ad-psgd", "rate_correction": "none"}
    steps = 200


class TestDPsgd(ProtocolConformance):
    gossip: ClassVar = {"protocol": "d-psgd", "topology": {"name": "ring"}, "mixing": MH}


class TestEpidemic(ProtocolConformance):
    gossip: ClassVar = {"protocol": "epidemic", "topology": {"name": "random"}}


class TestClippedGossip(ProtocolConformance):
    gossip: ClassVar = {"protocol": "clipped-gossip", "topology": COMPLETE, "mixing": MH}


class TestClippedGossipByRadius(ProtocolConformance):
    gossip: ClassVar = {
        "protocol": {"name": "clipped-gossip", "options": {"radius": 1.0}},
        "topology": COMPLETE,
        "mixing": MH,
    }


class TestNearestNeighbourAveraging(ProtocolConformance):
    gossip: ClassVar = {"protocol": {"name": "nearest-neighbour-averaging", "options": {"f": 1}}, "topology": COMPLETE}


class TestTrimmedMean(ProtocolConformance):
    gossip: ClassVar = {"protocol": {"name": "trimmed-mean", "options": {"f": 2}}, "topology": COMPLETE}


class TestGradientTracking(ProtocolConformance):
    gossip: ClassVar = {"protocol": "gradient-tracking"}


class TestNoLoCo(ProtocolConformance):
    gossip: ClassVar = {"protocol": "noloco", "topology": {"name": "matching"}}


class TestChoco(ProtocolConformance):
    gossip: ClassVar = {"protocol": "choco", "topology": {"name": "ring"}, "mixing": MH}
