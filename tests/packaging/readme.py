"""README.md as a program reads it: its blocks, and the commands of its shell blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMPT = re.compile(r"^([A-Z])\$ (.*)$")


@dataclass(frozen=True)
class Command:
    """One command: on which machine (empty: the reader's own), and what to type."""

    machine: str
    text: str


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return [body for name, body in _BLOCK.findall(README.read_text(encoding="utf-8")) if name == language]


def commands(block: str) -> list[Command]:
    """The commands of a shell block; a line that ends in a backslash goes on in the next."""
    found = []
    for line in block.replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        prompt = _PROMPT.match(line)
        machine, text = (prompt[1], prompt[2]) if prompt else ("", line)
        found.append(Command(machine, " ".join(text.split())))
    return found


def three_machines() -> list[Command]:
    """The commands of "Three machines, step by step"."""
    return next(found for block in blocks("sh") if (found := commands(block)) and found[0].machine)


def first_run() -> str:
    """The run's file there."""
    return next(block for block in blocks("toml") if 'name = "first"' in block)
