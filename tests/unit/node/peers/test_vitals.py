import pytest

from covey.node.peers.vitals import GIVE_UP_BEATS, Beat, Vitals


def beating(count=10):
    vitals = Vitals(1.0)
    vitals.began("bob", 0.0)
    for number in range(1, count + 1):
        vitals.heard("bob", Beat(number), float(number))
    return vitals


def test_a_peer_is_trusted_suspected_and_trusted_again_each_told_once():
    vitals = beating()
    assert vitals.changes(10.0) == [("bob", "trusted")]
    assert vitals.changes(11.0) == []
    assert vitals.changes(20.0) == [("bob", "suspected")]
    assert vitals.changes(21.0) == []
    vitals.heard("bob", Beat(11), 22.0)
    assert vitals.changes(22.1) == [("bob", "trusted")]


def test_who_says_something_while_it_is_suspected_is_suspected_again_when_that_was_its_last_word():
    vitals = beating()
    vitals.spoke("bob", 10.5)  # no change for one that is not suspected
    assert vitals.changes(10.5) == [("bob", "trusted")]
    assert vitals.changes(20.0) == [("bob", "suspected")]
    vitals.spoke("bob", 21.0)
    assert vitals.changes(21.0) == [("bob", "trusted")]
    assert vitals.changes(60.0) == [("bob", "suspected")]


def test_a_hello_is_a_sign_of_life_and_a_peer_that_only_says_hello_is_suspected():
    vitals = Vitals(1.0)
    vitals.began("bob", 0.0)
    assert vitals.changes(0.1) == [("bob", "trusted")]
    assert vitals.changes(8.0) == [("bob", "suspected")]


def test_a_link_is_given_up_after_a_long_silence_only():
    vitals = beating()
    assert not vitals.is_silent("bob", 10.0 + GIVE_UP_BEATS)
    assert vitals.is_silent("bob", 10.1 + GIVE_UP_BEATS)
    assert not vitals.is_silent("cyd", 1e6)


def test_the_round_trip_is_measured_without_the_time_that_the_echo_lay_there():
    vitals = Vitals(1.0)
    vitals.began("bob", 0.0)
    assert vitals.round_trip_s("bob") == 0.0
    sent = vitals.next_beat("bob", 5.0)
    vitals.heard("bob", Beat(1, echo=sent.number, echo_age_s=0.7), 5.9)
    assert vitals.round_trip_s("bob") == pytest.approx(0.2)
    answer = vitals.next_beat("bob", 6.0)
    assert (answer.number, answer.echo) == (2, 1)
    assert answer.echo_age_s == pytest.approx(0.1)


@pytest.mark.parametrize("echo", [0, 7, 1 << 63])
def test_an_echo_of_nothing_measures_nothing(echo):
    vitals = Vitals(1.0)
    vitals.began("bob", 0.0)
    vitals.next_beat("bob", 1.0)
    vitals.heard("bob", Beat(1, echo=echo), 1.5)
    assert vitals.round_trip_s("bob") == 0.0


@pytest.mark.parametrize("age_s", [-5.0, 3600.0])
def test_a_lie_about_the_age_of_an_echo_stays_between_nothing_and_the_whole_time(age_s):
    vitals = Vitals(1.0)
    vitals.began("bob", 0.0)
    sent = vitals.next_beat("bob", 1.0)
    vitals.heard("bob", Beat(1, echo=sent.number, echo_age_s=age_s), 1.5)
    assert 0.0 <= vitals.round_trip_s("bob") <= 0.5


def test_who_answers_nothing_costs_bounded_memory():
    vitals = Vitals(1.0)
    vitals.began("bob", 0.0)
    for number in range(10_000):
        vitals.next_beat("bob", float(number))
    assert len(vitals._pulses["bob"].sent) <= 64


def test_a_peer_that_is_forgotten_is_told_of_no_more():
    vitals = beating()
    vitals.forget("bob")
    assert vitals.changes(100.0) == []


def test_to_ask_for_a_peer_that_was_never_heard_says_nothing_of_it():
    vitals = Vitals()
    assert vitals.round_trip_s("bob") == 0.0
    assert vitals.changes(1.0) == []
