"""What an assignment says of parts: which to send, and which files come along."""

from __future__ import annotations

from dataclasses import replace

from covey import messages as msg
from covey.artifact import INLINE_BYTES, Artifact, artifact_of
from covey.coordinator.runs.assignments import free_part, input_files, method_files, wanted_parts
from covey.parts import Audience, DeclaredPart, PartFile
from covey.storage.record.contract import VersionRecord
from covey.wire.translation import input_message
from covey.worker.jobs.runs import Description

MODEL = DeclaredPart("m", "int8", "ab", 40, False, 1, None, "all", "rule", (), in_model=True)
SMALL = DeclaredPart("c", "none", "cd", 4, True, 1, 1, "all", "mean", ("version", "node-accepted"))
LARGE = DeclaredPart("g", "none", "ef", 1 << 20, True, None, 1, "all", "mean", ("version",))
DESCRIPTION = Description(True, 1, {}, (MODEL, SMALL, LARGE))
FILES = {"c": artifact_of([b"ctrl"]), "g": Artifact("0" * 64, INLINE_BYTES + 1, b"\0" * 32)}


def version(**files: Artifact) -> VersionRecord:
    state = tuple(PartFile(f"method/{name}", "none", artifact) for name, artifact in files.items())
    return VersionRecord("r", 1, "", artifact_of([]), 0.0, state=(*state, PartFile("optimizer/x", "none", FILES["c"])))


def test_nodes_are_asked_for_what_is_declared() -> None:
    assert wanted_parts(DESCRIPTION) == (msg.WantedPart("m", "int8", 40, False), msg.WantedPart("c", "none", 4, True))
    assert wanted_parts(DESCRIPTION, phase=2) == ()


def test_what_the_version_keeps_comes_along_if_it_is_small() -> None:
    found_files = method_files(DESCRIPTION, version(**FILES), "n")
    assert found_files == [(name, "", artifact) for name, artifact in FILES.items() if name in ("c", "g")]
    found = input_files(DESCRIPTION, version(**FILES), "n", lambda artifact: b"ctrl")
    assert found == (msg.InputFile("c", "", FILES["c"], b"ctrl"), msg.InputFile("g", "", FILES["g"]))


def test_the_first_version_keeps_nothing_yet() -> None:
    assert input_files(DESCRIPTION, version(), "n", lambda artifact: b"") == ()


def test_other_nodes_files_come_by_node_and_for_download() -> None:
    member = DeclaredPart("m", "none", "", 4, True, 1, 1, "others", "collect", ("version",))
    state = tuple(PartFile(f"method/m/{node}", "none", FILES["c"]) for node in ("a", "b"))
    base = replace(version(), state=state)
    expected: dict[Audience, list[str]] = {"others": ["b"], "own": ["a"], "all": ["a", "b"]}
    for audience, sources in expected.items():
        description = replace(DESCRIPTION, parts=(replace(member, audience=audience),))
        found = input_files(description, base, "a", lambda artifact: b"ctrl")
        assert found == tuple(msg.InputFile("m", source, FILES["c"]) for source in sources)


def test_the_chunk_digests_of_many_large_files_of_others_come_with_their_downloads() -> None:
    """A gigabyte each: the digests of all of them would not fit one message of 4 MiB."""
    member = DeclaredPart("m", "none", "", 1 << 30, True, 1, 1, "others", "collect", ("version",))
    large = Artifact("0" * 64, 1 << 30, bytes(32 << 10))
    for nodes, has_tables in ((33, True), (34, False), (200, False)):
        state = tuple(PartFile(f"method/m/n{k}", "none", large) for k in range(nodes))
        own = PartFile("method/g", "none", replace(large, digest="1" * 64))
        base = replace(version(), state=(*state, own))
        description = replace(DESCRIPTION, parts=(member, LARGE))
        found = input_files(description, base, "n0", lambda artifact: b"")
        others = [item for item in found if item.source]
        assert len(others) == nodes - 1
        assert {bool(item.artifact.chunk_sha256) for item in others} == {has_tables}
        assert all(item.artifact.chunk_sha256 for item in found if not item.source)
        assert sum(input_message(item).ByteSize() for item in found) < 2 << 20


def test_a_newcomer_takes_the_part_of_a_node_that_is_not_there() -> None:
    roster = ("a", "b", "c", "d", "e")
    whole = [free_part(roster, 5, roster, node) for node in roster]
    assert whole == [-1] * 5, "each has the part of its own place"
    assert free_part(roster, 3, {"a", "c", "d"}, "c") == -1
    assert free_part(roster, 3, {"a", "c", "d"}, "d") == 1
    assert (free_part(roster, 3, {"c", "d", "e"}, "d"), free_part(roster, 3, {"c", "d", "e"}, "e")) == (0, 1)
    assert free_part(roster, 3, {"b", "c", "d", "e"}, "e") == -1, "one part is free, and another newcomer has it"
    assert free_part(roster, 3, {"a", "b", "c", "d"}, "d") == -1
