"""A peers file that is changed while a node runs: addresses count, and nothing else does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from covey.node.gossip_peers_file import PeersFile
from covey.node.peers.roster import Member, Roster

KEY, OTHER = "a" * 64, "b" * 64


def written(path: Path, *members: Member) -> None:
    path.write_text(
        "".join(
            f'[[peers]]\nname = "{member.name}"\naddress = "{member.address}"\nfingerprint = "{member.fingerprint}"\n'
            for member in members
        )
    )


async def test_a_new_address_counts_and_other_keys_and_nodes_are_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, met = tmp_path / "peers.toml", asyncio.Queue[Member]()
    ada, bob, cyd = Member("ada", "a:1", KEY), Member("bob", "b:1", KEY), Member("cyd", "", KEY)
    written(path, ada, bob, cyd)
    roster = Roster.load(path)
    file = PeersFile(path, roster, met.put_nowait)
    assert file.look() == []
    moved = [Member("bob", "b:2", KEY), Member("cyd", "c:1", KEY)]
    written(path, ada, *moved)
    keeping = asyncio.create_task(file.keep(0.001))
    async with asyncio.timeout(60):
        assert [await met.get(), await met.get()] == moved
    keeping.cancel()
    assert roster.members == {"ada": ada, "bob": moved[0], "cyd": moved[1]}
    assert file.look() == []
    for differs in (
        [ada, Member("bob", "b:3", OTHER), moved[1]],
        [ada, Member("bob", "b:3", KEY)],
        [ada, Member("bob", "b:3", KEY), moved[1], Member("dan", "d:1", KEY)],
    ):
        written(path, *differs)
        assert file.look() == []
        assert file.look() == [Member("bob", "b:3", KEY)]  # called there; who answers has to have the key of before
    assert capsys.readouterr().out.count("only addresses count before the next start") == 1
    for bad in ("[[peers]]\nname =", f"peers = {'[' * 5_000}"):
        path.write_text(bad)
        assert file.look() == []
        assert "cannot be read" in capsys.readouterr().out


async def test_half_a_file_moves_nobody(tmp_path: Path) -> None:
    path, ada, bob = tmp_path / "peers.toml", Member("ada", "a:1", KEY), Member("bob", "b:1", KEY)
    written(path, ada, bob)
    file, whole = PeersFile(path, Roster.load(path), print), path.read_text()
    for end in range(len(whole) + 1):
        path.write_text(whole[:end])
        assert file.look() == []
        path.write_text(whole)
        assert file.look() == []
    moved = Member("bob", "b:2", KEY)
    written(path, ada, moved)
    assert [file.look(), file.look()] == [[], [moved]]


async def test_what_goes_wrong_at_one_look_does_not_end_the_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, met, moved = tmp_path / "peers.toml", asyncio.Queue[Member](), Member("bob", "b:2", KEY)
    written(path, Member("bob", "b:1", KEY))
    file, load, failures = PeersFile(path, Roster.load(path), met.put_nowait), Roster.load, [MemoryError()]
    written(path, moved)

    def fails_once(path: Path) -> Roster:
        if failures:
            raise failures.pop()
        return load(path)

    monkeypatch.setattr(Roster, "load", fails_once)
    keeping = asyncio.create_task(file.keep(0.001))
    async with asyncio.timeout(60):
        assert await met.get() == moved
    keeping.cancel()
    assert "cannot be looked at" in capsys.readouterr().out
