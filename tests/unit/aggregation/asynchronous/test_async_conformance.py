from __future__ import annotations

from typing import Any

import pytest

from covey.aggregation.asynchronous.basgd import BASGD
from covey.aggregation.asynchronous.buffered import Buffered
from covey.aggregation.asynchronous.contract import ASYNC_POLICIES, AsyncPolicy
from covey.aggregation.asynchronous.kardam import Kardam
from covey.aggregation.asynchronous.staleness_mean import StalenessMean
from covey.testing.policies import AsyncPolicyConformance


class TestKardam(AsyncPolicyConformance):
    def make(self) -> AsyncPolicy[Any]:
        return Kardam({"f": 1})


class TestKardamServer(AsyncPolicyConformance):
    def make(self) -> AsyncPolicy[Any]:
        return Kardam({"f": 2, "variant": "server", "dampening": "exponential"})


class TestKardamOfficial(AsyncPolicyConformance):
    def make(self) -> AsyncPolicy[Any]:
        return Kardam({"f": 1, "variant": "official", "frequency": "loose"})


class TestKardamStrict(AsyncPolicyConformance):
    def make(self) -> AsyncPolicy[Any]:
        return Kardam({"f": 2, "frequency": "strict", "dampening": "none"})


class TestBuffered(AsyncPolicyConformance):
    def make(self) -> AsyncPolicy[Any]:
        return Buffered({"k": 4})


class TestBufferedKrum(AsyncPolicyConformance):
    def make(self) -> AsyncPolicy[Any]:
        return Buffered({"k": 7, "rule": {"name": "krum", "options": {"f": 2}}, "dampening": "inverse"})


class TestBASGD(AsyncPolicyConformance):
    def make(self) -> AsyncPolicy[Any]:
        return BASGD({"buffers": 5})


class TestBASGDTrimmedMean(AsyncPolicyConformance):
    def make(self) -> AsyncPolicy[Any]:
        return BASGD({"buffers": 5, "rule": {"name": "trimmed-mean", "options": {"f": 1}}})


class TestStalenessMean(AsyncPolicyConformance):
    def make(self) -> AsyncPolicy[Any]:
        return StalenessMean()


@pytest.mark.parametrize(
    ("name", "kind"), [("kardam", Kardam), ("buffered", Buffered), ("basgd", BASGD), ("staleness-mean", StalenessMean)]
)
def test_policies_are_installed(name: str, kind: type[AsyncPolicy[Any]]) -> None:
    assert ASYNC_POLICIES.load(name) is kind
