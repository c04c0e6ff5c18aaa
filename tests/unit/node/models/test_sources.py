"""Whom chunks are asked of: the fastest first, nobody for ever, and whoever lies never again."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.node.models.sources import MOST_AT_ONCE, OVERTAKEN_CHUNKS, ROW_CHUNKS, TRIES, Ask, Candidate, Sources


def sources_of(chunks, *names, window=16):
    return Sources(chunks, 0, [Candidate(name) for name in names], window)


def all_asks(sources):
    asks = []
    while (ask := sources.next()) is not None:
        asks.append(ask)
    return asks


def test_measured_ones_first_then_near_ones_then_those_that_failed():
    candidates = [
        Candidate("far", round_trip_s=0.2),
        Candidate("slow", bytes_per_s=1e6),
        Candidate("unknown"),
        Candidate("near", round_trip_s=0.01),
        Candidate("fast", bytes_per_s=5e6),
    ]
    sources = Sources(100, 0, candidates, window=100)
    assert [ask.source for ask in all_asks(sources)] == ["fast", "slow", "near", "far"]
    sources.failed("fast", "broke")
    assert sources.next() == Ask("unknown", 0, ROW_CHUNKS)  # what the failed one had is asked first
    sources.answered("slow")
    assert [ask.source for ask in all_asks(sources)] == ["slow"]
    sources.answered("near")
    sources.answered("far")
    assert [ask.source for ask in all_asks(sources)] == ["near", "far"]


def test_a_row_ends_where_the_next_chunk_is_asked_already_and_at_the_window():
    sources = sources_of(20, "a", "b", "c", window=6)
    assert [(ask.first, ask.count) for ask in all_asks(sources)] == [(0, 4), (4, 2)]
    sources.failed("a", "broke")
    assert sources.next() == Ask("c", 0, 4)


def test_only_so_many_are_asked_at_once():
    sources = sources_of(1000, *"abcdefgh", window=1000)
    assert len(all_asks(sources)) == MOST_AT_ONCE


def test_who_is_overtaken_loses_its_first_chunk_to_another_one():
    sources = sources_of(64, "slow", "quick", window=8)
    assert all_asks(sources) == [Ask("quick", 0, 4), Ask("slow", 4, 4)]
    for index in range(4):
        assert sources.came("quick", index, 1e6)
        sources.wrote(index)
    sources.answered("quick")
    assert OVERTAKEN_CHUNKS == 4
    assert sources.next() == Ask("quick", 8, 4)  # free ones come first
    for index in range(8, 12):
        assert sources.came("quick", index, 1e6)
    sources.answered("quick")
    assert sources.next() == Ask("quick", 4, 1)
    assert sources.came("quick", 4, 1e6)
    assert not sources.came("slow", 4, 1.0)  # too late


def test_a_liar_is_not_asked_again_and_others_only_so_often():
    sources = sources_of(8, "liar", "silent")
    all_asks(sources)
    sources.failed("liar", "lied")
    for _ in range(TRIES - 1):
        sources.failed("silent", "unreachable")
        assert [ask.source for ask in all_asks(sources)] == ["silent"]
    assert not sources.is_lost
    sources.failed("silent", "unreachable")
    assert sources.is_lost
    assert sources.next() is None
    assert sources.liars == ("liar",)
    assert sources.tell() == "liar gave wrong bytes (1), silent could not be asked (3)"


def test_a_chunk_makes_up_for_failures():
    sources = sources_of(8, "a")
    for index in range(TRIES + 2):
        assert sources.next() is not None
        sources.came("a", index, 1e6)
        sources.wrote(index)
        sources.failed("a", "broke")
    assert sources.next() == Ask("a", TRIES + 2, 3)


@pytest.mark.parametrize("first", [0, 5, 8])
def test_nothing_is_asked_of_what_is_here(first):
    sources = Sources(8, first, [Candidate("a")])
    assert [(ask.first, ask.count) for ask in all_asks(sources)] == ([(first, min(4, 8 - first))] if first < 8 else [])
    assert sources.is_whole is (first == 8)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), chunks=st.integers(1, 60), others=st.integers(0, 5), window=st.integers(1, 20))
def test_with_one_honest_source_the_file_comes_whole_whatever_the_others_do(seed, chunks, others, window):
    rng = random.Random(seed)
    names = ["honest", *(f"peer-{index}" for index in range(others))]
    sources = sources_of(chunks, *names, window=window)
    open_asks, here = {}, {}
    for _ in range(200 * chunks + 1000):
        while sources.written in here:
            del here[sources.written]
            sources.wrote(sources.written)
        while (ask := sources.next()) is not None:
            assert ask.source not in open_asks
            open_asks[ask.source] = list(range(ask.first, ask.first + ask.count))
            assert len(open_asks) <= MOST_AT_ONCE
        if sources.is_whole:
            break
        assert len(here) <= window
        name = rng.choice([*open_asks, *["honest"] * ("honest" in open_asks)]) if open_asks else None
        assert name is not None, "nobody is asked"
        if name != "honest" and rng.random() < 0.3:
            del open_asks[name]
            sources.failed(name, rng.choice(["unreachable", "broke", "lied"]))
        elif name == "honest" or rng.random() < 0.5:
            index = open_asks[name].pop(0)
            if sources.came(name, index, rng.uniform(1, 1e9)):
                assert index not in here
                here[index] = name
            if not open_asks[name]:
                del open_asks[name]
                sources.answered(name)
    assert sources.is_whole
