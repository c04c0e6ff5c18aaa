"""Next-character prediction in a text of plays, by speaker."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from covey.errors import TaskError
from covey.learning.task import LossOutput, NodeData, Task
from covey.learning.tasks.locations import locate

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
"""Fixed, so that the model does not depend on anybody's text."""
UNKNOWN = len(ALPHABET)
SYMBOLS = UNKNOWN + 1
EMBEDDING = 32
TRAINING_SHARE = 0.9


class Windows(TensorDataset):
    """int64 [n, context] characters, the same shifted by one, and who says them."""

    def __init__(self, text: list[tuple[str, str]], context: int) -> None:
        rows, self.speakers = [], list[Hashable]()
        for speaker, speech in text:
            codes = encode(speech)
            count = max(0, (len(codes) - 1) // context)
            rows.append(codes[: count * context + 1].unfold(0, context + 1, context) if count else codes[:0])
            self.speakers += [speaker] * count
        texts = [row for row in rows if row.ndim == 2]
        windows = torch.cat(texts) if texts else torch.empty(0, context + 1, dtype=torch.int64)
        super().__init__(windows[:, :-1].contiguous(), windows[:, 1:].contiguous())


class CharacterModel(nn.Module):
    """Embedding, GRU, and a linear layer over the symbols."""

    def __init__(self, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, EMBEDDING)
        self.gru = nn.GRU(EMBEDDING, hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden, SYMBOLS)

    def forward(self, x: Tensor) -> Tensor:
        """int64 [n, context] to logits [n, context, symbols]."""
        states, _ = self.gru(self.embedding(x))
        logits: Tensor = self.output(states)
        return logits


class Characters(Task):
    """Predict each next character.

    The text is UTF-8, in blocks between empty lines whose first line is the speaker and a colon; other texts
    are taken as one speaker's. It is the file that the node's operator named as path `text`, else
    COVEY_DATA/tinyshakespeare/input.txt. The first nine tenths are for training, the rest for evaluation.
    """

    class Options(Task.Options):
        """[task.options] of `characters`."""

        context: int = Field(default=64, ge=1, le=65536)
        """Characters in a window."""
        hidden: int = Field(default=128, ge=1, le=65536)
        layers: int = Field(default=1, ge=1, le=64)

    has_keys = True
    options: Options

    def model(self) -> nn.Module:
        """A small GRU."""
        return CharacterModel(self.options.hidden, self.options.layers)

    def train_data(self, data: NodeData) -> Windows:
        """(int64 [context], int64 [context]) windows of each speaker's speech."""
        path = locate(data, "text", "tinyshakespeare/input.txt")
        if path is None or not path.is_file():
            place = f"no text at {path}" if path else "no text"
            raise TaskError(f"{place}: name the file in node.toml, [data.paths] text = ..., or set COVEY_DATA")
        return self._windows(path, evaluation=False)

    def eval_data(self, data: NodeData) -> Windows | None:
        """The last tenth of the node's own text; with COVEY_DATA the coordinator has the same."""
        path = locate(data, "text", "")
        return self._windows(path, evaluation=True) if path and path.is_file() else None

    def central_data(self) -> Windows | None:
        """The last tenth of the text in COVEY_DATA on the coordinator."""
        path = locate(None, "text", "tinyshakespeare/input.txt")
        return self._windows(path, evaluation=True) if path and path.is_file() else None

    def loss(self, model: nn.Module, batch: Any) -> LossOutput:
        """Mean cross entropy over all characters of the windows."""
        x, y = batch
        logits, targets = model(x).flatten(0, 1), y.flatten()
        return LossOutput(functional.cross_entropy(logits, targets), len(y), logits, targets)

    def keys(self, dataset: Dataset[Any]) -> Sequence[Hashable] | None:
        """The speakers."""
        return dataset.speakers if isinstance(dataset, Windows) else None

    def _windows(self, path: Path, *, evaluation: bool) -> Windows:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise TaskError(f"{path}: cannot be read as UTF-8 text: {error}") from error
        cut = int(len(text) * TRAINING_SHARE)
        return Windows(speeches(text[cut:] if evaluation else text[:cut]), self.options.context)


def encode(text: str) -> Tensor:
    """int64 [len(text)]: each character's place in the alphabet, or `UNKNOWN`."""
    table = {character: code for code, character in enumerate(ALPHABET)}
    return torch.tensor([table.get(character, UNKNOWN) for character in text], dtype=torch.int64)


def speeches(text: str) -> list[tuple[str, str]]:
    """What each speaker says, in order of first appearance; a block without a name goes to the last one."""
    lines: dict[str, list[str]] = {}
    speaker = ""
    for block in text.split("\n\n"):
        head, colon, speech = block.partition(":\n")
        if colon and "\n" not in head:
            speaker = head
        else:
            speech = block
        lines.setdefault(speaker, []).append(speech)
    return [(speaker, "\n".join(spoken)) for speaker, spoken in lines.items()]
