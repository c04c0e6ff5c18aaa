"""The conformance suite of methods: inherit from `MethodConformance` in a test file and name the method.

class TestMine(MethodConformance):
name = "mine"
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from covey.artifact import artifact_of_file
from covey.errors import PluginError, SpecError
from covey.methods.contract import METHODS
from covey.parts import slot
from covey.simulation.plan import Plan
from covey.simulation.simulation import simulate
from covey.spec import RunSpec
from covey.testing.launch.forks import forked_workers
from covey.testing.method_rounds import MethodRounds, spec_of
from covey.worker.jobs.files import WrittenFile

ROUNDS = 3


class MethodConformance:
    """What Covey relies on in a method, in small runs of mode "rounds" with the task of `covey.testing.method_rounds`.

    Subclasses give `name`, and where needed options and sections of the specification.
    """

    name: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    sections: ClassVar[Mapping[str, Any]] = {}

    def spec(self) -> RunSpec:
        """The run."""
        return spec_of(self.name, self.options, **self.sections)

    def rounds(self, folder: Path) -> MethodRounds:
        """A new run with three nodes."""
        return MethodRounds(self.spec(), folder)

    def test_unknown_option_is_refused_by_name(self) -> None:
        """A misspelt option must not be ignored."""
        with pytest.raises(SpecError, match=r"method\.options\.no-such-option"):
            METHODS.make(self.name, {**self.options, "no-such-option": 1})

    def test_it_is_registered_under_its_name(self) -> None:
        """Runs name it; others are refused with the list of those that are installed."""
        with pytest.raises(PluginError, match=f"no method named 'no-such-method'.*{self.name}"):
            METHODS.make("no-such-method")

    def test_what_is_sent_is_what_is_declared(self, tmp_path: Path) -> None:
        """Names, order, codecs, layouts and sizes, in the first round and in later ones."""
        run = self.rounds(tmp_path)
        declared = [part for part in run.description.parts if part.up is not None]
        for number in range(1, ROUNDS):
            for node in run.names:
                parts = run.train(node, number, attempt="looked-at").parts
                assert [(p.name, p.codec, p.layout) for p in parts] == [(p.name, p.codec, p.layout) for p in declared]
                for part, written in zip(declared, parts, strict=True):
                    size = written.artifact.size_bytes
                    assert size == part.size_bytes if part.exact else size <= part.size_bytes
                    assert artifact_of_file(written.path) == written.artifact
            run.round()

    def test_what_is_kept_is_what_is_declared(self, tmp_path: Path) -> None:
        """The files of the version, and those of each node."""
        run = self.rounds(tmp_path)
        result = run.round()
        assert {file.name for file in result.state} == set(run.description.slots)
        kept = {slot(part.name): part.keep for part in run.description.parts}
        for node in run.nodes.values():
            assert set(node.state) == set(run.description.node_state)
            assert not [name for name in node.own if "node-always" not in kept.get(name, ("node-always",))]
            assert not [name for name in node.accepted if "node-accepted" not in kept.get(name, ("node-accepted",))]

    def test_training_again_gives_the_same_bytes(self, tmp_path: Path) -> None:
        """Also in another process' place: whatever it does is a function of files and seeds."""
        run, other = self.rounds(tmp_path / "one"), self.rounds(tmp_path / "other")
        for _ in range(2):
            run.round()
            other.round()
        first, again = run.train("n1", 3), run.train("n1", 3, attempt="again")
        assert _contents(first.parts) == _contents(again.parts) == _contents(other.train("n1", 3).parts)
        assert _contents(first.state) == _contents(again.state)
        assert _contents(first.own_state) == _contents(again.own_state)

    def test_a_training_leaves_what_it_starts_from_as_it_is(self, tmp_path: Path) -> None:
        """Model, inputs and state: they count until the update is accepted, and may be needed again."""
        run = self.rounds(tmp_path)
        run.round()
        files = [run.model, *run.version_state.values(), *run.nodes["n0"].state.values()]
        before = [path.read_bytes() for path in files]
        run.train("n0", 2)
        assert [path.read_bytes() for path in files] == before

    def test_a_rejected_update_changes_nothing_but_what_is_the_node_s_own(self, tmp_path: Path) -> None:
        """The rejected node goes on from its state before, and its parts have no share in the version."""
        run, without = self.rounds(tmp_path / "spoilt"), self.rounds(tmp_path / "without")
        for each in (run, without):
            each.round()
        before = {name: path.read_bytes() for name, path in run.nodes["n2"].accepted.items()}
        result = run.round(spoilt=["n2"])
        assert [verdict.accepted for verdict in result.verdicts] == [True, True, False]
        assert {name: path.read_bytes() for name, path in run.nodes["n2"].accepted.items()} == before
        assert result.model_sha256 == without.round(["n0", "n1"]).model_sha256
        assert _contents(result.state) == {name: path.read_bytes() for name, path in without.version_state.items()}

    def test_a_simulation_comes_to_the_same_model(self, tmp_path: Path) -> None:
        """With the coordinator's and the node's own code around the method, as without them."""
        run = self.rounds(tmp_path / "rounds")
        for _ in range(ROUNDS):
            run.round()
        plan = Plan(self.spec(), len(run.names), tmp_path / "simulation", processes=1)
        with forked_workers():
            record = asyncio.run(simulate(plan))
        assert (record.state, record.reason) == ("completed", "")
        assert _newest_sha256(plan, record.run) == run.model_sha256


def _contents(files: tuple[WrittenFile, ...]) -> dict[str, bytes]:
    return {file.name: file.path.read_bytes() for file in files}


def _newest_sha256(plan: Plan, run: str) -> str:
    from covey.coordinator.config import sqlite_url
    from covey.storage.sql.store import open_store

    store = open_store(sqlite_url(plan.folder))
    try:
        return store.version(run, -1).model_sha256
    finally:
        store.close()
