"""PAWS: views of unlabelled examples predict each other's nearest labelled neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from covey.layout import Layout, TensorSpec
from covey.learning.recipe import Recipe, RecipeContext
from covey.learning.representations.neighbours import Support, paws_terms
from covey.methods.contract import Combination, FinishContext, Made, Part, RunForm
from covey.methods.predictor import predictor_of
from covey.methods.representations.semi_supervised import SemiSupervised, SemiSupervisedOptions, Viewed
from covey.parts import COLLECT, Keep

BANK, LABELS = "bank", "bank-labels"
NONE = -1
"""The label of a row in which there is nothing."""


class PawsOptions(SemiSupervisedOptions):
    """Options of `paws`."""

    sharpening: float = Field(default=0.25, gt=0, le=1)
    """T: targets are p^(1/T), normalised."""
    me_max: bool = True
    """Whether the entropy of the mean prediction is maximised."""
    bank: int = Field(default=0, ge=0, le=1000)
    """How many labelled examples of each label a node shows to the others as embeddings, once a round; 0: none."""


class Paws(SemiSupervised):
    """Plain averaging of models whose local training has views of unlabelled examples agree on labelled neighbours.

    Assran, Caron, Misra, Bojanowski, Joulin, Ballas and Rabbat, "Semi-Supervised Learning of Visual Features by
    Non-Parametrically Predicting View Assignments with Support Samples" (ICCV 2021, arXiv 2104.13963), equations 1 to
    3. In each step a view of an example predicts softmax(cos(z, S) / tau) Y over the labelled examples S; the target is
    what the other view predicts, sharpened and without gradient; the entropy of the mean prediction is maximised (see
    `covey.learning.representations.neighbours`). z is what goes into the task's predictor.

    With `bank`, the labelled examples of other nodes take part: part `bank` (float32 `[classes * bank, width]`) and
    `bank-labels` (int64, -1 where a node has no such example), made by the model that came down, so that all of a round
    are of the same model, go up from each node, and come down to all others with the next round; nothing learns from
    them by their gradient. Metrics `bank/bytes` and `bank/embeddings` say how much all nodes sent. **Embeddings with
    labels show much of the examples**: nodes decline unless their operator allows it. They are under no rule: a node
    that lies about its labels has as many rows of the support as it has shown.

    Deviations: two views without small crops; no projection head; the predictor is learned beside it, from the labelled
    examples' own loss (`supervised`), where the paper tunes it afterwards.
    """

    Options = PawsOptions
    options: PawsOptions

    @property
    def representations(self) -> bool:
        """With a bank."""
        return self.options.bank > 0

    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        """And more to be shown than there is."""
        yield from super().refusals(run)
        if self.options.bank > self.options.labelled:
            text = (
                f"a node shows labelled examples, and has {self.options.labelled} of each label; choose as many at most"
            )
            yield "method.options.bank", text

    def parts(self, form: RunForm) -> Sequence[Part]:
        """Those of plain averaging, and the bank's."""
        if not self.options.bank:
            return super().parts(form)
        predictor = predictor_of(form, "paws")
        rows, keep = predictor.classes * self.options.bank, frozenset[Keep]({"version"})
        tables = TensorSpec(BANK, "float32", (rows, predictor.width)), TensorSpec(LABELS, "int64", (rows,))
        shared: dict[str, Any] = {"up": 1, "down": 1, "audience": "others", "combine": COLLECT, "keep": keep}
        return (*super().parts(form), *(Part(name=t.name, layout=Layout.of([t]), **shared) for t in tables))

    def objection(self, parts: Mapping[str, Any], form: RunForm) -> str:
        """Labels that are none."""
        if LABELS not in parts:
            return ""
        labels, classes = parts[LABELS], len(parts[LABELS]) // self.options.bank
        least, largest = int(labels.min()), int(labels.max())
        return "" if least >= NONE and largest < classes else f"labels from {least} to {largest} in its bank"

    def recipe(self, phase: int) -> Recipe | None:
        """The loss, and the node's share of the bank."""
        return Assigned(self.options)

    def finish(self, parts: Mapping[str, Tensor], state: Mapping[str, Tensor], context: FinishContext) -> Made:
        """How much of a bank there is."""
        if not self.options.bank:
            return Made()
        banks = [update.parts[name] for update in context.updates.values() for name in (BANK, LABELS)]
        shown = sum(int((update.parts[LABELS] != NONE).sum()) for update in context.updates.values())
        size = sum(tensor.nbytes for tensor in banks)
        return Made(metrics={"bank/bytes": (float(size), 1.0), "bank/embeddings": (float(shown), 1.0)})


class Assigned(Viewed):
    """The terms of PAWS."""

    name: ClassVar[str] = "paws"

    def __init__(self, options: PawsOptions) -> None:
        super().__init__(options)
        self._paws, self._own = options, dict[str, Tensor]()
        self._bank: Support | None = None

    def begin(self, context: RecipeContext) -> None:
        """Look up what the others showed, and make what this node shows."""
        super().begin(context)
        if self._paws.bank:
            self._own = self._shown()
            self._bank = self._others()

    def compared(self, first: Tensor, second: Tensor, support: Support) -> Tensor:
        """Consistency, and the entropy of the mean."""
        options = self._paws
        terms = paws_terms(
            first,
            second,
            support,
            temperature=options.temperature,
            sharpening=options.sharpening,
            bank=self._bank,
            gather=self.gather,
        )
        return terms.consistency + terms.negative_entropy if options.me_max else terms.consistency

    def finish(self) -> Mapping[str, Tensor | bytes]:
        """What this node shows."""
        return dict(self._own)

    @torch.no_grad()
    def _shown(self) -> dict[str, Tensor]:
        """Embeddings of labelled examples by the model that came down, normalised, and their labels; flat."""
        model, count = self.context.model, self._paws.bank
        places = torch.cat([known[:count] for known in self.known])
        embedded = self.embedded(model.eval(), self.context.examples(places))
        model.train()
        classes = self.one_hot(embedded, self.labels[places]).shape[1]
        embeddings = torch.zeros(classes * count, embedded.features.shape[1])
        labels = torch.full((classes * count,), NONE)
        embeddings[: len(places)] = functional.normalize(embedded.features).cpu()
        labels[: len(places)] = self.labels[places]
        return {BANK: embeddings.flatten(), LABELS: labels}

    def _others(self) -> Support | None:
        """What the other nodes showed; None: nothing yet."""
        banks, labels = (self.context.inputs.others.get(name, {}) for name in (BANK, LABELS))
        width = len(self._own[BANK]) // len(self._own[LABELS])
        classes = len(self._own[LABELS]) // self._paws.bank
        if not banks:
            return None
        embeddings = torch.cat([banks[node].view(-1, width) for node in sorted(banks)])
        known = torch.cat([labels[node] for node in sorted(banks)])
        embeddings, known = embeddings[known != NONE], known[known != NONE]
        device = self.context.device
        return Support(embeddings.to(device), functional.one_hot(known, classes).to(device, torch.float32))
