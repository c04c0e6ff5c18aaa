"""SuNCEt: labelled examples of one class are neighbours, beside a contrastive loss among views of all."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from covey.learning.recipe import Recipe
from covey.learning.representations.neighbours import Support, contrastive_loss, suncet_loss
from covey.methods.representations.semi_supervised import SemiSupervised, SemiSupervisedOptions, Viewed


class SunCEtOptions(SemiSupervisedOptions):
    """Options of `suncet`."""

    neighbours: float = Field(default=1.0, ge=0)
    """How much the labelled neighbours count beside the contrastive loss; 0: SimCLR."""


class SunCEt(SemiSupervised):
    """Plain averaging of models whose local training contrasts views, and gathers labelled examples of one class.

    Assran, Ballas, Castrejon and Rabbat, "Supervision Accelerates Pre-training in Contrastive Semi-Supervised Learning
    of Visual Representations" (arXiv 2006.10803), equation 2: minus the logarithm of the share of an example's soft
    neighbours, among the labelled ones of the step, that have its label, added to SimCLR's loss for two views of the
    batch (see `covey.learning.representations.neighbours`). What is exchanged is as in plain averaging.

    Deviations: as of `paws` (no projection head; the predictor is learned beside it); both losses have the same
    temperature; the loss does not fade out in the course of training.
    """

    Options = SunCEtOptions
    options: SunCEtOptions

    def recipe(self, phase: int) -> Recipe | None:
        """The two losses."""
        return Contrasted(self.options)


class Contrasted(Viewed):
    """SimCLR's loss and that of SuNCEt."""

    name: ClassVar[str] = "suncet"

    def __init__(self, options: SunCEtOptions) -> None:
        super().__init__(options)
        self._neighbours = options.neighbours

    def compared(self, first: Tensor, second: Tensor, support: Support) -> Tensor:
        """Both."""
        temperature = self._options.temperature
        loss = contrastive_loss(first, second, temperature=temperature, gather=self.gather)
        return loss + self._neighbours * suncet_loss(support, temperature=temperature, gather=self.gather)
