"""The page of methods says what is installed and what submission accepts, and finds the sources in docstrings."""

from __future__ import annotations

from pathlib import Path

import pytest

from covey.plugins import GROUPS, installed
from covey.testing.catalogue.entries import entry_of, source_in
from covey.testing.catalogue.page import FAMILIES, page
from covey.testing.catalogue.pairs import KEYS, goes

PAGE = Path(__file__).parents[3] / "docs" / "methods.md"
WITHOUT_PAPER = {"none", "statistics", "constant", "label-flip", "nan", "stale-replay", "bf16", "fp16", "int4", "int8"}
"""What is too plain to be of a paper."""


def test_no_kind_of_plugin_is_missing() -> None:
    assert set(FAMILIES) == set(GROUPS)
    assert set(KEYS) <= set(GROUPS)


@pytest.mark.timeout(400)  # thousands of specifications are checked
def test_the_page_is_as_it_would_be_made_now() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "make methods"


@pytest.mark.parametrize(
    "kind",
    ["method", "aggregator", "pre-aggregator", "async-policy", "server-optimizer", "codec", "protocol", "attack"],
)
def test_every_method_names_its_source(kind: str) -> None:
    entries = [entry_of(plugin) for plugin in installed(kind) if plugin.package == "covey"]
    assert {entry.name for entry in entries if not entry.source} <= WITHOUT_PAPER
    assert all((PAGE.parents[1] / entry.file).is_file() for entry in entries)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        (
            'It is old. Li et al., "A: B" (ICML 2020, arXiv 2001.00001), section 2.',
            'Li et al., "A: B" (ICML 2020, arXiv 2001.00001)',
        ),
        ('Source: Lee, "C" (IEEE 66(1), 2021). More (2022).', 'Lee, "C" (IEEE 66(1), 2021)'),
        ("With weights as in rounds (see there), 3 of 2020 nodes.", ""),
    ],
)
def test_a_source_is_found_in_prose(text: str, source: str) -> None:
    assert source_in(text) == source


def test_what_is_refused_does_not_go_together() -> None:
    assert goes("codec", "sign", "aggregator", "majority-vote")
    assert not goes("codec", "sign", "aggregator", "krum")
    assert not goes("aggregator", "mean", "async-policy", "kardam")
