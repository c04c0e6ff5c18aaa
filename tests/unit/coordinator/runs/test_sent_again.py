"""What went twice: counted by round, put on record once with its end, and read from there."""

from covey.coordinator.runs.sent_again import MOST_ROUNDS, SENT_AGAIN, Resent, SentAgain, on_record
from covey.storage.record.contract import EventRecord


def test_a_round_in_which_nothing_broke_leaves_nothing_on_record():
    assert SentAgain().ended(1, "run", 5.0) is None


def test_the_sum_of_a_round_is_put_on_record_once():
    again = SentAgain()
    again.note(1, Resent(up=3))
    again.note(2, Resent(down=100))
    again.note(1, Resent(up=4, down=5))
    assert again.of(1) == Resent(7, 5)
    event = again.ended(1, "run", 5.0)
    assert event == EventRecord(5.0, SENT_AGAIN, "run", detail={"round": 1, "up": 7, "down": 5})
    assert again.of(1) == Resent()
    assert again.ended(1, "run", 6.0) is None
    assert again.of(2) == Resent(down=100)


def test_nobody_fills_the_memory_with_rounds():
    again = SentAgain()
    for number in range(2 * MOST_ROUNDS):
        again.note(number, Resent(up=1))
    assert again.of(MOST_ROUNDS) == Resent()
    again.note(0, Resent(up=1))
    assert again.of(0) == Resent(up=2)


def test_a_round_is_found_among_others_and_a_damaged_event_counts_nothing():
    details = ({"round": 2, "up": 1, "down": 2}, {"round": 1, "up": 9}, {"round": 2, "up": "x"}, {})
    events = [EventRecord(1.0, SENT_AGAIN, "run", detail=detail) for detail in details]
    events.append(EventRecord(1.0, "other", "run", detail={"round": 2, "up": 50}))
    assert on_record(events, 2) == Resent(1, 2)
    assert on_record(events, 3) == Resent()
