"""What an event has to say, in words."""

from covey.cli.views.event_lines import event_lines
from covey.client.reading.run_log import detail_in_words, log_of
from covey.client.values import Event, RoundDetail

DETAIL = {
    "by": "alice",
    "added": ["member dave", "node hospital-c"],
    "taken_out": [],
    "privacy": {"delta": 0.0, "epsilon": 4.25, "is_secret": True, "unit": "example", "rounds": None},
}
WORDS = "by alice, added member dave, node hospital-c, privacy (delta 0, epsilon 4.25, is secret yes, unit example)"


def test_an_event_is_said_in_words():
    assert detail_in_words(DETAIL) == WORDS
    event = Event(1.0, "study-changed", detail=DETAIL)
    assert event_lines([event]).plain.endswith(f"study-changed  {WORDS}")
    details: dict[int, RoundDetail] = {}
    [line] = log_of([event], [], details.__getitem__)
    assert line.text == WORDS
