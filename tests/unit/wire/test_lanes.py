"""A file over several connections: who carries which chunk, and when more than one are worth it."""

import pytest

from covey.artifact import CHUNK_BYTES
from covey.errors import TransferError
from covey.wire.transfers.lanes import LEAST_BYTES, MAX_LANES, Lane, Pace, woven

MIB = 1 << 20


@pytest.mark.parametrize("count", range(1, MAX_LANES + 1))
@pytest.mark.parametrize("size_bytes", [0, 1, CHUNK_BYTES, 5 * CHUNK_BYTES, 9 * CHUNK_BYTES + 7])
@pytest.mark.parametrize("offset", [0, CHUNK_BYTES, 3 * CHUNK_BYTES])
def test_all_lanes_together_carry_every_chunk_once(count, size_bytes, offset):
    carried = [start for index in range(count) for start in Lane(index, count).starts(offset, size_bytes)]
    assert sorted(carried) == list(range(offset, size_bytes, CHUNK_BYTES))


@pytest.mark.parametrize(("index", "count"), [(0, 5), (1, 1), (4, 4), (0, 1 << 31), (3, 2)])
def test_there_are_no_other_lanes(index, count):
    with pytest.raises(TransferError, match="at most 4"):
        Lane.checked(index, count)


@pytest.mark.parametrize(
    "text", ["", "1", "a/b", "-1/4", "0/", "/4", "0/4/4", "\u0661/4", "0/99999999", "0" * 5000 + "/4"]
)
def test_a_text_that_is_no_lane_is_refused(text):
    with pytest.raises(TransferError):
        Lane.parse(text)


def test_a_lane_says_itself_and_a_call_without_one_is_the_only_one():
    assert Lane.parse(str(Lane(2, 4))) == Lane(2, 4)
    assert Lane.checked(0, 0) == Lane(0, 1)


async def lane(chunks, read):
    for chunk in chunks:
        read.append(chunk)
        yield memoryview(chunk)


@pytest.mark.parametrize("count", range(1, MAX_LANES + 1))
@pytest.mark.parametrize("chunks", [0, 1, 2, 7, 8])
async def test_woven_lanes_are_the_file(count, chunks):
    file = [bytes([number]) for number in range(chunks)]
    lanes = [lane(file[index::count], []) for index in range(count)]
    assert [bytes(chunk) async for chunk in woven(lanes)] == file


async def test_nothing_is_read_ahead_of_a_lane_that_ended_early():
    read = []
    lanes = [lane([b"0", b"2", b"4"], read), lane([b"1"], read)]
    assert [bytes(chunk) async for chunk in woven(lanes)] == [b"0", b"1", b"2"]
    assert read == [b"0", b"1", b"2"]


def pace(mb_per_s, *round_trips_s):
    found = Pace()
    found.passed(100_000_000, 100 / mb_per_s)
    for seconds in round_trips_s:
        found.answered(seconds)
    return found


@pytest.mark.parametrize(
    ("mb_per_s", "round_trip_s", "lanes"),
    [
        (500, 0.001, 1),  # a fast link in a building
        (80, 0.1, 4),  # the window of one connection is what bounds it
        (30, 0.1, 2),  # the buffer of one socket is
        (10, 0.1, 1),  # the link itself is
        (600, 0.009, 1),
    ],
)
def test_so_many_connections_as_the_link_is_worth(mb_per_s, round_trip_s, lanes):
    assert pace(mb_per_s, round_trip_s).lanes(MAX_LANES) == lanes


def test_a_link_of_which_nothing_is_known_gets_one_connection():
    assert Pace().lanes(MAX_LANES) == 1
    assert pace(80).lanes(MAX_LANES) == 1
    unanswered = pace(80, 0.0)
    assert unanswered.lanes(MAX_LANES) == 1


def test_one_question_that_met_a_queue_does_not_count_and_an_old_one_is_forgotten():
    assert pace(80, 0.001, 0.1).lanes(MAX_LANES) == 1
    assert pace(80, 0.001, *[0.1] * 8).lanes(MAX_LANES) == 4


def test_no_more_than_the_other_side_allows_and_small_files_say_nothing():
    found = pace(80, 0.1)
    assert [found.lanes(most) for most in (0, 1, 2, 3, 100)] == [1, 1, 2, 3, MAX_LANES]
    found.passed(LEAST_BYTES - 1, 1000.0)
    assert found.lanes(MAX_LANES) == 4
    found.passed(LEAST_BYTES, 1000.0)
    assert found.lanes(MAX_LANES) == 1
