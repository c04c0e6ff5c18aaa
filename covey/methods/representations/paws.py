"""PAWS: views of unlabelled examples predict each other's nearest labelled neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

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

BANK = "bank"


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

    With `bank`, the labelled examples of other nodes take part: part `bank` (float32 `[classes, bank, width]`, zeros
    where a node has no such example), made by the model that came down, so that all of a round are of the same model,
    goes up from each node, and comes down to all others with the next round; nothing learns from it by its gradient.
    Metrics `bank/bytes` and `bank/embeddings` say how much all nodes sent. **Embeddings with labels show much of the
    examples**: nodes decline unless their operator allows it. They are under no rule: a node that lies about its labels
    has as many rows of the support as it has shown.

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
        """Those of plain averaging, and the bank."""
        if not self.options.bank:
            return super().parts(form)
        predictor = predictor_of(form, "paws")
        table = TensorSpec(BANK, "float32", (predictor.classes, self.options.bank, predictor.width))
        keep = frozenset[Keep]({"version"})
        bank = Part(name=BANK, layout=Layout.of([table]), up=1, down=1, audience="others", combine=COLLECT, keep=keep)
        return (*super().parts(form), bank)

    def recipe(self, phase: int) -> Recipe | None:
        """The loss, and the node's share of the bank."""
        return Assigned(self.options)

    def finish(self, parts: Mapping[str, Tensor], state: Mapping[str, Tensor], context: FinishContext) -> Made:
        """How much of a bank there is."""
        if not self.options.bank:
            return Made()
        banks = [update.parts[BANK] for update in context.updates.values()]
        width = predictor_of(context.form, "paws").width
        size, shown = sum(bank.nbytes for bank in banks), sum(int(_used(bank.view(-1, width)).sum()) for bank in banks)
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
            own = self._shown()
            self._own, self._bank = {BANK: own.flatten()}, self._others(own)

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
    def _shown(self) -> Tensor:
        """Labelled examples as the model that came down has them, normalised: float32 `[classes, bank, width]`."""
        model, count = self.context.model, self._paws.bank
        shown = [places[:count] for places in self.known]
        embedded = self.embedded(model.eval(), self.context.examples(torch.cat(shown)))
        model.train()
        classes = self.one_hot(embedded, self.labels).shape[1]
        bank = torch.zeros(classes, count, embedded.features.shape[1])
        rows = torch.split(functional.normalize(embedded.features).cpu(), [len(places) for places in shown])
        for places, embeddings in zip(shown, rows, strict=True):
            bank[self.labels[places[0]], : len(places)] = embeddings
        return bank

    def _others(self, own: Tensor) -> Support | None:
        """What the other nodes showed, as this node's own bank is laid out; None: nothing yet."""
        banks, device = self.context.inputs.others.get(BANK, {}), self.context.device
        if not banks:
            return None
        classes, count, width = own.shape
        rows = torch.cat([banks[node].view(-1, width) for node in sorted(banks)])
        labels = functional.one_hot(torch.arange(classes).repeat_interleave(count).repeat(len(banks)), classes)
        used = _used(rows)
        return Support(rows[used].to(device), labels[used].to(device, torch.float32))


def _used(rows: Tensor) -> Tensor:
    """Which rows of a bank have an embedding: bool `[n]`."""
    return (rows != 0).any(1)
