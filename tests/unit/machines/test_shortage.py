"""Why a run has too few updates: who answered how, together, and which of it will not change by itself."""

from __future__ import annotations

import pytest

from covey.errors import CoveyError, LayoutError, NoPart, NotReady, PluginError, PolicyError, SpecError, TaskError
from covey.machines.protocol import Verdict
from covey.machines.shortage import all_declined_for_good, have_a_part_now, listed, refusals_text, will_not_change


@pytest.mark.parametrize("error", [LayoutError, PluginError, PolicyError, SpecError, TaskError])
def test_what_a_node_cannot_do_it_cannot_do_when_asked_again(error: type[CoveyError]) -> None:
    assert will_not_change("declined", f"{error.code}: why: in detail")
    assert will_not_change("declined", error.code)
    for verdict in ("rejected", "lost", "late"):
        assert not will_not_change(verdict, f"{error.code}: why")


@pytest.mark.parametrize(
    "reason", [f"{NotReady.code}: later", f"{NoPart.code}: dealt", "", "because of a policy: no", " policy: no"]
)
def test_any_other_decline_may_change(reason: str) -> None:
    assert not will_not_change("declined", reason)


POLICY: tuple[Verdict, str] = ("declined", f"{PolicyError.code}: no")
TASK: tuple[Verdict, str] = ("declined", f"{TaskError.code}: unknown")
LOST: tuple[Verdict, str] = ("lost", "no connection")


@pytest.mark.parametrize(
    ("refusals", "is_so"),
    [
        ([], False),
        ([LOST], False),
        ([POLICY], True),
        ([POLICY, TASK, LOST], True),
        ([POLICY, ("late", "no update before the deadline")], False),
        ([POLICY, ("rejected", f"{PolicyError.code}: no")], False),
        ([POLICY, ("declined", f"{NotReady.code}: later")], False),
    ],
)
def test_all_have_declined_for_good(refusals: list[tuple[Verdict, str]], is_so: bool) -> None:
    assert all_declined_for_good({f"n{place}": one for place, one in enumerate(refusals)}) is is_so


NO_PART: tuple[Verdict, str] = ("declined", f"{NoPart.code}: the data are cut into 2 parts")


@pytest.mark.parametrize(
    ("refusals", "found"),
    [
        ({}, set()),
        ({"c": NO_PART}, set()),  # whoever has the parts is still at work
        ({"c": NO_PART, "d": NO_PART}, set()),
        ({"b": LOST, "c": NO_PART}, {"c"}),
        ({"b": POLICY, "c": NO_PART, "d": NO_PART}, {"c", "d"}),
        ({"b": ("late", ""), "c": ("declined", NoPart.code), "d": TASK}, {"c"}),
        ({"gone": LOST, "c": NO_PART}, set()),  # it was not invited: its part was free already
        ({"b": LOST, "c": ("rejected", f"{NoPart.code}: said the rule")}, set()),
    ],
)
def test_who_had_no_part_has_one_once_another_of_the_invited_is_out(
    refusals: dict[str, tuple[Verdict, str]], found: set[str]
) -> None:
    assert have_a_part_now(refusals, ("a", "b", "c", "d")) == found


def test_nodes_with_the_same_answer_are_named_together() -> None:
    assert refusals_text({}) == ""
    text = refusals_text({"a": POLICY, "b": LOST, "c": POLICY, "d": ("late", "no connection")})
    assert text == ("a and c declined: no; b lost: no connection; d late: no connection")


def test_beyond_five_kinds_of_answers_only_their_number_is_said() -> None:
    kinds: dict[str, tuple[Verdict, str]] = {f"n{place}": ("declined", f"why {place}") for place in range(7)}
    *named, rest = refusals_text(kinds).split("; ")
    assert named == [f"n{place} declined: why {place}" for place in range(5)]
    assert rest == "and 2 more kinds of answers"
    del kinds["n6"], kinds["n5"]
    assert "more kinds" not in refusals_text(kinds)


def test_a_long_reason_is_cut() -> None:
    assert refusals_text({"a": ("declined", "x" * 400)}) == "a declined: " + "x" * 400
    assert refusals_text({"a": ("declined", "x" * 401)}) == "a declined: " + "x" * 400 + "..."


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, ""),
        (1, "n0"),
        (2, "n0 and n1"),
        (3, "n0, n1 and n2"),
        (6, "n0, n1, n2, n3, n4 and n5"),  # to name the sixth is as short as to count it
        (7, "n0, n1, n2, n3, n4 and 2 more"),
        (1000, "n0, n1, n2, n3, n4 and 995 more"),
    ],
)
def test_names_in_a_sentence(number: int, text: str) -> None:
    assert listed(f"n{place}" for place in range(number)) == text
