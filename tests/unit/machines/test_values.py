"""Values of machines as JSON and back: whatever events there are, and whole machines in the middle of a run."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.coordinator.modes.asynchronous.events import AsyncAction, AsyncEvent, AsyncRestored, AsyncRunPolicy, OpenWork
from covey.coordinator.modes.registry import ASYNC, ROUNDS
from covey.coordinator.modes.rounds.events import Restored, RoundAction, RoundEvent, RoundPolicy
from covey.machines.protocol import NodeAnswered, NodeJoined, Tick
from covey.machines.values import TextWriter

MODES = [
    (ROUNDS, (*typing.get_args(RoundEvent), *typing.get_args(RoundAction), RoundPolicy, Restored)),
    (ASYNC, (*typing.get_args(AsyncEvent), *typing.get_args(AsyncAction), AsyncRunPolicy, AsyncRestored)),
]
PAIRS = [(table, cls) for table, classes in MODES for cls in classes]


def values_of(cls):
    """Values of a class, with something for every field."""
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{field.name: values_for(hints[field.name]) for field in dataclasses.fields(cls)})


def values_for(hint):
    if typing.get_origin(hint) is Mapping:  # a dict: other mappings come back as one
        return st.dictionaries(*map(st.from_type, typing.get_args(hint)), max_size=4)
    return st.from_type(hint)


def through_json(table, value):
    return table.from_json(json.loads(json.dumps(table.to_json(value), allow_nan=False)))


@pytest.mark.parametrize(("table", "cls"), PAIRS, ids=lambda item: getattr(item, "__name__", ""))
@settings(max_examples=25)
@given(data=st.data())
def test_every_event_and_action_survives(table, cls, data):
    value = data.draw(values_of(cls))
    assert repr(through_json(table, value)) == repr(value)  # so that not-a-number equals itself
    compact = json.dumps(table.to_json(value), separators=(",", ":"))
    assert TextWriter(table).text(value) == compact
    assert TextWriter(table).text(((value, 1), value)) == f"[[{compact},1],{compact}]"


@given(values=st.lists(st.one_of(*map(values_of, MODES[0][1])), max_size=8))
def test_any_sequence_survives(values):
    assert repr([through_json(ROUNDS, value) for value in values]) == repr(values)


@pytest.mark.parametrize(
    "value",
    [math.inf, -math.inf, b"\x00\xff", {3: "c"}, {"$": 1}, {"a", "b"}, {1, 2}, [1, (2, [3])], {"a": (None, True, 1.5)}],
)
def test_what_json_lacks_survives(value):
    read = through_json(ROUNDS, value)
    assert read == value
    assert type(read) is type(value)


def test_a_field_that_holds_another_class_survives():
    restored = AsyncRestored(open={"ada": OpenWork(3, 2)}, undecided={4: "bob"}, unevaluated=(1, 2))
    assert through_json(ASYNC, restored) == restored


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"$": "NodeJoined", "node": 3, "now": 1.0}, "NodeJoined.node: Input should be a valid string"),
        ({"$": "NodeJoined", "node": "ada", "now": "1"}, "NodeJoined.now: Input should be a valid number"),
        ({"$": "NodeJoined", "node": "ada", "now": 1.0, "more": 1}, "NodeJoined has no more"),
        ({"$": "NodeJoined", "node": "ada"}, "NodeJoined: .*missing 1 required"),
        ({"$": "Popen", "args": "ls"}, "no class named 'Popen' is in the table"),
        ({"$": ["NodeJoined"]}, "no class named .* is in the table"),
        ({"$": "set", "items": 1}, "this is no set"),
        ({"$": "set", "others": [1]}, "a set has just 'items'"),
        ({"$": "set", "items": [{"a": 1}]}, "this is no set"),
        ({"$": "float", "value": "much"}, "could not convert"),
    ],
)
def test_what_was_not_written_so_is_not_read(wrong, message):
    with pytest.raises(ValueError, match=message):
        ROUNDS.from_json(wrong)


def test_an_unknown_verdict_is_not_read():
    value = ROUNDS.to_json(NodeAnswered("ada", 1, "declined", "busy", 1.0)) | {"verdict": "perhaps"}
    with pytest.raises(ValueError, match=r"NodeAnswered\.verdict"):
        ROUNDS.from_json(value)


def test_a_value_that_has_no_place_in_the_table_is_not_written():
    with pytest.raises(TypeError, match=r"builtins\.object is not in the table"):
        ROUNDS.to_json((Tick(1.0), object()))
    with pytest.raises(TypeError, match="AsyncRunPolicy is not in the table"):
        ROUNDS.to_json(AsyncRunPolicy(3))
    assert ROUNDS.to_json(NodeJoined("ada", 1.0)) == {"$": "NodeJoined", "node": "ada", "now": 1.0}
