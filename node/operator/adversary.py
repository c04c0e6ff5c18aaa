"""A node as an adversary for a drill: which attack, with whom, and what is added to its training jobs.

Adversaries of one group share a folder: each puts there what it would honestly send (`RUN/ROUND-BASE/NODE.f32`, raw
float32), and the attack is computed from what all of them put there. In an asynchronous run members are never in the
same round: each uses the newest that it finds (`RUN/newest/NODE.f32`).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import JsonValue

from covey.errors import PluginError, SpecError
from covey.plugins import installed
from covey.spec import parse_json
from covey.user_code.asking import ask
from covey.worker.jobs.training import AttackOrder, TrainJob

FOLDER = "drills"
"""In a node's data directory: what its attacks remember, by run."""
CHECK_S = 120.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Drill:
    """What the operator of a drill node decided.

    Attributes:
        attack: Its plug-in's name.
        options: Its options.
        group: The folder that the group shares; None: the node acts alone.
        members: Node ids of the group, this node among them.
    """

    attack: str
    options: Mapping[str, JsonValue] = field(default_factory=dict)
    group: Path | None = None
    members: tuple[str, ...] = ()

    def folders(self, data_dir: Path) -> tuple[Path, ...]:
        """Where its attacks put what they remember, and what they share."""
        return (data_dir / FOLDER, *([self.group] if self.group is not None else []))

    def describe(self) -> str:
        """For people, in one line."""
        options = f" {json.dumps(dict(self.options))}" if self.options else ""
        group = f", together with {', '.join(self.members)}" if self.members else ""
        return f"its updates are the attack {self.attack}{options}{group}"


def parse_options(pairs: tuple[str, ...]) -> dict[str, JsonValue]:
    """Options from `KEY=VALUE`: numbers, true, false and lists as in JSON, everything else as text.

    Raises:
        SpecError: Not of that form, or a key twice.
    """
    options: dict[str, JsonValue] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key or key in options:
            raise SpecError(f"--attack-option {pair!r}: write KEY=VALUE, each key once")
        try:
            options[key] = json.loads(text)
        except ValueError:
            options[key] = text
    return options


def check_drill(drill: Drill, node: str) -> None:
    """Refuse what cannot work, before the node connects. Starts a program that imports the attack.

    Raises:
        PluginError: No such attack is installed here.
        SpecError: Its options, or those of its group, are wrong.
    """
    if (drill.group is None) != (not drill.members):
        raise SpecError("--attack-group and --attack-members go together: the shared folder, and who shares it")
    _check_members(drill.members, node)
    answer = check_attack(drill)
    if answer["omniscient"] and drill.group is None:
        raise SpecError(f"--attack {drill.attack} needs others to learn from: give --attack-group and --attack-members")


def check_attack(drill: Drill) -> Mapping[str, JsonValue]:
    """Refuse an attack that there is not; what it needs. Starts a program that imports it. Raises as `check_drill`."""
    known = [plugin.name for plugin in installed("attack")]
    if drill.attack not in known and ":" not in drill.attack:
        raise PluginError(f"--attack: no attack named {drill.attack!r} is installed here; choose {', '.join(known)}")
    answer = _asked(drill)
    if answer["error"]:
        raise SpecError(f"--attack {drill.attack}: {answer['error']}")
    return answer


def _check_members(members: tuple[str, ...], node: str) -> None:
    for name in members:
        if not NAME.fullmatch(name):
            raise SpecError(f"--attack-members: {name!r} is not a node's name")
    if members and node not in members:
        raise SpecError(f"--attack-members: this node, {node}, must be one of them (given: {', '.join(members)})")


def _asked(drill: Drill) -> dict[str, JsonValue]:
    question = {"name": drill.attack, "options": dict(drill.options)}
    try:
        answer: dict[str, JsonValue] = ask("covey.worker.execute.updates.adversary", question, CHECK_S)
    except PluginError as error:
        raise PluginError(f"--attack {drill.attack}: {error}") from error
    return answer


def ordered(drill: Drill, job: TrainJob, node: str, base: str, data_dir: Path) -> TrainJob:
    """A training job as the drill wants it.

    Args:
        drill: The operator's.
        job: What an honest node would do.
        node: This node's id.
        base: sha256 of the base model: a round that is done again on another base is another round.
        data_dir: The node's.
    """
    order = AttackOrder(drill.attack, drill.options, memory=data_dir / FOLDER / job.run)
    if drill.group is None:
        return replace(job, attack=order)
    newest = not parse_json(job.spec_json).facts.synchronous
    run = drill.group / job.run
    folder = run / ("newest" if newest else f"{job.round}-{base[:16]}")
    folder.mkdir(parents=True, exist_ok=True)
    _forget(run, job.round, node)
    group = {member: folder / f"{member}.f32" for member in drill.members}
    order = replace(order, group=group, attackers=len(group), wait_s=0.0 if newest else order.wait_s)
    return replace(job, attack=order, honest=group[node])


def _forget(run: Path, now: int, node: str) -> None:
    """Drop this node's vectors of rounds before the last one, and folders that are empty then."""
    for folder in run.iterdir():
        number = folder.name.partition("-")[0]
        if number.isdecimal() and int(number) < now - 1:
            (folder / f"{node}.f32").unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()
