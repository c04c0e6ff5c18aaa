"""Long layouts are files; a run whose messages would be too long is refused with numbers."""

from dataclasses import replace

import pytest

from covey.artifact import INLINE_BYTES, artifact_of
from covey.coordinator.runs.assignments import assignment, evaluation_assignment
from covey.coordinator.runs.layouts import MAX_MESSAGE_BYTES, layout_file, refuse_oversized, told_to_others
from covey.errors import LimitExceeded
from covey.layout import Layout, TensorSpec
from covey.parts import DeclaredPart
from covey.storage.record.contract import RunRecord, VersionRecord
from covey.wire.translation import from_coordinator, to_node
from covey.worker.jobs.runs import Description

SHORT = Layout.of([TensorSpec("weight", "float32", (2, 3))]).to_json()
LONG = Layout.of([TensorSpec(f"{i}-{'x' * 400}", "float32", (2,)) for i in range(20_000)]).to_json()


def record(layout):
    return RunRecord("run", "name", "rounds", "{}", 1, "running", "", 1.0, layout=layout)


@pytest.mark.parametrize("make", [lambda run, base: assignment(run, base, b"", 0, 1, 1), None])
def test_a_layout_of_any_size_fits_an_assignment(make):
    make = make or (lambda run, base: evaluation_assignment(run, base, b"", 0))
    base = VersionRecord("run", 0, "a" * 64, artifact_of([b"model"]), 1.0)
    short, long = make(record(SHORT), base), make(record(LONG), base)
    assert (short.layout, short.layout_file) == (SHORT, None)
    assert len(LONG) > 2 * MAX_MESSAGE_BYTES
    assert (long.layout, long.layout_file) == ("", layout_file(LONG))
    assert long.layout_file is not None
    assert long.layout_file.size_bytes == len(LONG)
    for message in (short, long):
        sent = to_node(message)
        assert sent.ByteSize() < INLINE_BYTES
        assert from_coordinator(sent) == message


def test_a_model_whose_table_of_checksums_fills_a_message_is_refused_with_numbers():
    refuse_oversized("{}", Description(True, 1, {}, model_bytes=40 << 30))
    with pytest.raises(LimitExceeded, match=r"about \d{8} bytes .*429496729600 bytes .*at most 4194304"):
        refuse_oversized("{}", Description(True, 1, {}, model_bytes=400 << 30))
    with pytest.raises(LimitExceeded, match="5000000 of the specification"):
        refuse_oversized("x" * 5_000_000, Description(True, 1, {}))


def test_a_run_whose_nodes_get_more_files_of_each_other_than_a_message_can_name_is_refused():
    member = DeclaredPart("m", "none", "", 1 << 30, True, 1, 1, "others", "collect", ("version",))
    description = Description(True, 1, {}, (member,), model_bytes=1 << 30)
    refuse_oversized("{}", description, 10_000)
    with pytest.raises(LimitExceeded, match=r"the 1 files of each of 20000 nodes.*at most 4194304; this method is for"):
        refuse_oversized("{}", description, 20_000)
    refuse_oversized("{}", replace(description, parts=(replace(member, audience="own"),)), 20_000)


def test_what_nodes_get_of_each_other_is_said_in_bytes():
    member = DeclaredPart("member", "none", "", 1000, True, 1, 1, "others", "collect", ("version", "node-always"))
    own, model = replace(member, name="own", audience="own"), replace(member, name="model", combine="rule")
    text = told_to_others(Description(False, 1, {}, (member, own, model)), 4)
    assert text == (
        "each node gets what the others send (member): of 4 nodes, a round takes 4 x 1000 = 4000 bytes up and "
        "12 x 1000 = 12000 bytes down, and a version keeps 4000"
    )
    assert told_to_others(Description(False, 1, {}, (own, model)), 4) == ""
