from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from covey.errors import PluginError, SpecError
from covey.simulation.adversaries import Adversaries, Attack, assigned, checked
from covey.worker.jobs.training import TrainJob

ALL = ("n0", "n1", "n2", "n3")
ALIE = Attack("alie", 1, {"z": 1.0}, omniscient=True)


def job(number=1):
    return TrainJob("run", "{}", "{}", number, 0, 4, Path("base"), {})


def federation(tmp_path, invited=ALL, attack=ALIE):
    return Adversaries({"n3": attack}, tmp_path, lambda number: invited)


def trained(adversaries, node, number=1, content=b"\0\0\0\0"):
    """As an honest node's worker would: the vector is in its file, then the work has ended."""
    path = adversaries.ordered(node, job(number)).honest
    path.write_bytes(content)
    adversaries.finished(node, number)
    return path


def test_the_last_nodes_are_the_adversaries_in_order():
    found = assigned([Attack("alie", 2), Attack("nan", 1)], ["a", "b", "c", "d", "e"])
    assert {node: attack.name for node, attack in found.items()} == {"c": "alie", "d": "alie", "e": "nan"}
    assert assigned([], ["a"]) == {}


def test_attacks_are_checked_and_their_needs_found_out():
    alie, flip = checked([Attack("alie", 1), Attack("sign-flip", 2)], 5)
    assert (alie.omniscient, flip.omniscient) == (True, False)


@pytest.mark.parametrize(
    ("attack", "error", "message"),
    [
        (Attack("unheard-of", 1), PluginError, "choose alie"),
        (Attack("alie", 0), SpecError, "at least one"),
        (Attack("alie", 6), SpecError, "only 5 nodes"),
        (Attack("alie", 1, {"sigma": 1}), SpecError, "unknown key"),
    ],
)
def test_what_cannot_work_is_refused(attack, error, message):
    with pytest.raises(error, match=message):
        checked([attack], 5)


async def test_an_adversary_begins_when_every_honest_node_has_finished(tmp_path):
    adversaries = federation(tmp_path)
    turn = asyncio.create_task(adversaries.turn("n3", 1))
    paths = {}
    for node in ("n0", "n1"):
        paths[node] = trained(adversaries, node)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not turn.done()
    adversaries.finished("n2", 1)  # declined: it leaves no vector
    await asyncio.wait_for(turn, 5)
    order = adversaries.ordered("n3", job()).attack
    assert (order.name, order.options, order.nodes, order.attackers) == ("alie", {"z": 1.0}, 4, 1)
    assert order.group == paths


async def test_honest_nodes_never_wait(tmp_path):
    await asyncio.wait_for(federation(tmp_path).turn("n0", 1), 5)


async def test_only_the_round_s_own_nodes_are_waited_for_and_known(tmp_path):
    adversaries = federation(tmp_path, invited=("n1", "n3"))
    path = trained(adversaries, "n1")
    await asyncio.wait_for(adversaries.turn("n3", 1), 5)
    assert adversaries.ordered("n3", job()).attack.group == {"n1": path}


async def test_vectors_of_rounds_gone_by_are_dropped(tmp_path):
    adversaries = federation(tmp_path)
    old = trained(adversaries, "n0", 1)
    new = trained(adversaries, "n0", 2)
    assert not old.exists()
    assert adversaries.ordered("n3", job(2)).attack.group == {"n0": new}


async def test_an_attack_that_needs_nothing_makes_nobody_wait_or_write(tmp_path):
    adversaries = federation(tmp_path, attack=Attack("sign-flip", 1))
    await asyncio.wait_for(adversaries.turn("n3", 1), 5)
    assert adversaries.ordered("n0", job()) == job()
    order = adversaries.ordered("n3", job()).attack
    assert (order.name, order.group) == ("sign-flip", {})
    assert order.memory is not None


async def test_without_rounds_the_newest_vector_of_each_is_known(tmp_path):
    adversaries = federation(tmp_path, invited=())
    await asyncio.wait_for(adversaries.turn("n3", 3), 5)
    first, second = trained(adversaries, "n0", 1), trained(adversaries, "n1", 2)
    newest = trained(adversaries, "n0", 4)
    assert adversaries.ordered("n3", job(5)).attack.group == {"n0": newest, "n1": second}
    assert first.exists()  # it may just be read
    trained(adversaries, "n0", 6)
    assert not first.exists()
