"""Which virtual nodes attack, and how those that know everything come to know it.

In a round the honest nodes train first. Where an attack needs to know what they send, each leaves its honest vector in
a file, and the adversaries begin when all honest nodes of the round have finished, with an update or without.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import JsonValue

from covey.errors import PluginError, SpecError
from covey.plugins import installed
from covey.user_code.asking import ask
from covey.worker.jobs.training import AttackOrder, TrainJob

CHECK_S = 120.0
HONEST = "honest"


@dataclass(frozen=True)
class Attack:
    """What some of the nodes do.

    Attributes:
        name: The plug-in's.
        count: How many nodes.
        options: The plug-in's.
        omniscient: Whether it must know the honest vectors (`checked` finds out).
    """

    name: str
    count: int
    options: Mapping[str, JsonValue] = field(default_factory=dict)
    omniscient: bool = False


def checked(attacks: Sequence[Attack], nodes: int) -> list[Attack]:
    """Attacks that can be started, with what they need known. Starts a program that imports them.

    Raises:
        PluginError: An attack is not installed here.
        SpecError: Its options or its number of nodes are wrong.
    """
    known = [plugin.name for plugin in installed("attack")]
    for attack in attacks:
        if attack.name not in known and ":" not in attack.name:
            raise PluginError(f"--attack: no attack named {attack.name!r} is installed; choose {', '.join(known)}")
        if attack.count < 1:
            raise SpecError(f"--attack {attack.name}={attack.count}: at least one node must attack")
    adversaries = sum(attack.count for attack in attacks)
    if adversaries > nodes:
        raise SpecError(f"--attack: {adversaries} adversaries, but there are only {nodes} nodes")
    return [replace(attack, omniscient=_is_omniscient(attack)) for attack in attacks]


def _is_omniscient(attack: Attack) -> bool:
    question = {"name": attack.name, "options": dict(attack.options)}
    try:
        answer = ask("covey.worker.execute.updates.adversary", question, CHECK_S)
    except PluginError as error:
        raise PluginError(f"--attack {attack.name}: {error}") from error
    if answer["error"]:
        raise SpecError(f"--attack {attack.name}: {answer['error']}")
    return bool(answer["omniscient"])


def assigned(attacks: Sequence[Attack], nodes: Sequence[str]) -> dict[str, Attack]:
    """The adversaries: the last nodes, of which the last ones do the last attack."""
    by_node: dict[str, Attack] = {}
    end = len(nodes)
    for attack in reversed(attacks):
        by_node.update(dict.fromkeys(nodes[end - attack.count : end], attack))
        end -= attack.count
    return by_node


class Adversaries:
    """The attacks of one simulation.

    Args:
        attacks: Node to what it does; nodes that are not in it are honest.
        folder: For honest vectors and for what attacks remember.
        invited: The nodes that take part in a round, by its number; empty where rounds are one node's own (mode
            `async`): then adversaries know each honest node's newest vector, as far as there is one.
    """

    def __init__(
        self, attacks: Mapping[str, Attack], folder: Path, invited: Callable[[int], Sequence[str]] = lambda _: ()
    ) -> None:
        self.attacks, self._folder, self._invited = dict(attacks), folder, invited
        self._needed = any(attack.omniscient for attack in attacks.values())
        self._finished: defaultdict[int, set[str]] = defaultdict(set)
        self._vectors: defaultdict[int, dict[str, Path]] = defaultdict(dict)
        self._newest: dict[str, Path] = {}
        self._before: dict[str, Path] = {}
        self._moved = asyncio.Event()

    async def turn(self, node: str, number: int) -> None:
        """Wait until this node can do its work for a round: until what it must know is there."""
        attack = self.attacks.get(node)
        while attack is not None and attack.omniscient and not self._awaited(number) <= self._finished[number]:
            await self._moved.wait()

    def ordered(self, node: str, job: TrainJob) -> TrainJob:
        """A node's job as it is to be done now."""
        attack = self.attacks.get(node)
        if attack is not None:
            return replace(job, attack=self._order(node, attack, job.round))
        if not self._needed:
            return job
        folder = self._folder / HONEST / str(job.round)
        folder.mkdir(parents=True, exist_ok=True)
        path = self._vectors[job.round][node] = folder / f"{node}.f32"
        return replace(job, honest=path)

    def _order(self, node: str, attack: Attack, number: int) -> AttackOrder:
        taking_part = self._invited(number)
        return AttackOrder(
            attack.name,
            attack.options,
            group=self._known(number) if attack.omniscient else {},
            nodes=len(taking_part),
            attackers=sum(other in self.attacks for other in taking_part) or len(self.attacks),
            memory=self._folder / "memory" / node,
            wait_s=0.0,
        )

    def _awaited(self, number: int) -> set[str]:
        return {node for node in self._invited(number) if node not in self.attacks}

    def _known(self, number: int) -> dict[str, Path]:
        vectors = self._vectors[number] if self._invited(number) else self._newest
        return {node: path for node, path in vectors.items() if path.exists()}

    def finished(self, node: str, number: int) -> None:
        """A node's work for a round has ended, in whatever way."""
        if not self._needed or node in self.attacks:
            return
        if self._invited(number):
            self._finished[number].add(node)
            self._forget(number - 1)
        else:
            self._renew(node, number)
        self._moved.set()
        self._moved = asyncio.Event()

    def _forget(self, number: int) -> None:
        self._finished.pop(number, None)
        if self._vectors.pop(number, None) is not None:
            shutil.rmtree(self._folder / HONEST / str(number), ignore_errors=True)

    def _renew(self, node: str, number: int) -> None:
        """This node's newest vector takes the place of the one before, which an adversary may just be reading."""
        path = self._vectors.pop(number, {}).get(node)
        if path is None or not path.exists():
            return
        if node in self._before:
            shutil.rmtree(self._before[node].parent, ignore_errors=True)
        if node in self._newest:
            self._before[node] = self._newest[node]
        self._newest[node] = path
