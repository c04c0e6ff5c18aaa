"""Attacks of adversaries that know honest vectors and act as one. Means and deviations are over the known vectors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from covey.aggregation.attacks.contract import Attack, AttackContext
from covey.aggregation.attacks.single import normal
from covey.aggregation.directions import BlockRule
from covey.aggregation.matrix import UpdateMatrix
from covey.errors import LayoutError, RunFailed
from covey.options import PluginOptions
from covey.seeds import derive_seed
from covey.vectors import FunctionVector, TensorVector, Vector


def of_columns(known: UpdateMatrix, rule: Callable[[Tensor], Tensor]) -> Vector:
    """A vector whose element j follows from column j of the known vectors: from float32 `[k, b]` to `[b]`."""
    return FunctionVector(known.d, BlockRule(known, rule).read)


def deviation(slab: Tensor) -> Tensor:
    """The standard deviation of each column, dividing by k: float32 `[k, b]` to `[b]`."""
    # torch.std over the first dimension takes sixteen times as long.
    return (slab - slab.mean(0)).square_().mean(0).sqrt_()


def auto_z(nodes: int, attackers: int) -> float:
    """The deviations that ALIE takes as hidden: Phi^-1((n - f - h) / (n - f)), h = floor(n / 2 + 1) - f.

    h honest nodes must lie farther out than the adversaries, so that these and the adversaries are a majority.

    Raises:
        RunFailed: n and f are unknown, or the adversaries are a majority, or are no less than the honest.
    """
    honest, needed = nodes - attackers, nodes // 2 + 1 - attackers
    if attackers < 1 or not 0 < needed < honest:
        raise RunFailed(
            f"attack alie with z = auto is defined for 1 <= f <= n / 2, not for n = {nodes}, f = {attackers}; "
            "give z as a number"
        )
    return NormalDist().inv_cdf((honest - needed) / honest)


class ALIE(Attack):
    """A little is enough: mu - z s, elementwise mean and standard deviation: hidden within the honest spread.

    Baruch, Baruch, Goldberg, "A Little Is Enough: Circumventing Defenses For Distributed Learning" (NeurIPS 2019),
    Algorithm 3. s divides by k, as in the authors' code, where mean and deviation are of the attackers' own honest
    vectors. The paper's z is `"auto"` (0.25 for n = 25, f = 5); their code's default is 1.5, as here.
    """

    class Options(PluginOptions):
        """Options of ALIE."""

        z: float | Literal["auto"] = 1.5
        """How many standard deviations; `auto`: the most that n and f hide."""

    options: Options
    omniscient = True

    def vector(self, own: Vector, context: AttackContext) -> Vector:
        """float32 `[d]`.

        Raises:
            RunFailed: Fewer than 2 known vectors, or z = auto is not defined.
        """
        known, z = context.require_known(2, "alie"), self.options.z
        deviations = auto_z(context.nodes, context.attackers) if z == "auto" else z
        return of_columns(known, lambda slab: slab.mean(0).sub_(deviation(slab), alpha=deviations))


class IPM(Attack):
    """Inner product manipulation: -epsilon mu: so that the result's product with the honest mean is negative.

    Xie, Koyejo, Gupta, "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation" (UAI 2019).
    epsilon 0.1 is stealthy, 2 and more is gross.
    """

    class Options(PluginOptions):
        """Options of IPM."""

        epsilon: float = Field(default=0.1, gt=0)

    options: Options
    omniscient = True

    def vector(self, own: Vector, context: AttackContext) -> Vector:
        """float32 `[d]`.

        Raises:
            RunFailed: No known vectors.
        """
        epsilon = self.options.epsilon
        return of_columns(context.require_known(1, "ipm"), lambda slab: slab.mean(0).mul_(-epsilon))


class Mimic(Attack):
    """All adversaries copy one honest node, the one that gives the most weight to a direction in which nodes differ.

    Karimireddy, He, Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing" (ICLR 2022), appendix,
    as its authors' code has it. In a warm-up they follow the direction z of the largest variance between honest nodes,
    one step of power iteration a round, t = 0, 1, ...: m <- t/(t+1) m + 1/(t+1) mean_i x_i; v = sum_i <x_i - m, z>
    (x_i - m), scaled to length one; z <- t/(t+1) z + 1/(t+1) v, scaled to length one. So the random z that it begins
    with, the same for all adversaries, is gone after the first step.

    Deviation: they sum up the scores <x_i, z> over the warm-up, and copy the node with the largest |score|, of equal
    ones the first; the authors copy the node with the largest <x_i, z> of the round alone. After the warm-up that node
    does not change any more.

    What it remembers: `mean` and `direction` `[d]`, `scores` `[k]`. It begins anew where the number of known vectors
    changes.
    """

    class Options(PluginOptions):
        """Options of mimic."""

        warmup: int = Field(default=20, ge=1)
        """Rounds of the warm-up."""

    options: Options
    omniscient = True

    def vector(self, own: Vector, context: AttackContext) -> Vector:
        """The copied vector, float32 `[d]`.

        Raises:
            RunFailed: No known vectors.
        """
        known = context.require_known(1, "mimic")
        return known.rows[int(self._learned(known, context).scores.abs().argmax())].reader

    def remembered(self, own: Vector, context: AttackContext) -> Mapping[str, Vector]:
        """`mean`, `direction` and `scores`."""
        known = context.require_known(1, "mimic")
        learned = self._learned(known, context)
        if context.round <= self.options.warmup:
            learned = learned.next(known, context.round - 1)
        return {name: TensorVector(getattr(learned, name)) for name in ("mean", "direction", "scores")}

    def _learned(self, known: UpdateMatrix, context: AttackContext) -> _Learned:
        """What it has found out up to now, with this round's scores."""
        kept = context.memory
        if "scores" not in kept or len(kept["scores"]) != known.n:
            z = normal(known.d, 1.0, derive_seed(context.seed, "mimic")).read(slice(0, known.d))
            return _Learned(_mean(known).dense(), _unit(z), torch.zeros(known.n), fresh=True).scored(known)
        if len(kept["mean"]) != known.d:
            raise LayoutError(f"the remembered mean has {len(kept['mean'])} elements, the vectors have {known.d}")
        learned = _Learned(kept["mean"], kept["direction"], kept["scores"])
        return learned.scored(known) if context.round <= self.options.warmup else learned


@dataclass(frozen=True)
class _Learned:
    """What mimic has found out: float32 `[d]`, `[d]`, `[k]`."""

    mean: Tensor
    direction: Tensor
    scores: Tensor

    def scored(self, known: UpdateMatrix) -> _Learned:
        """With the scores of one more round."""
        return replace(self, scores=self.scores + known.products(self.direction).float())

    fresh: bool = False
    """Whether nothing was remembered: z is random yet."""

    def next(self, known: UpdateMatrix, t: int) -> _Learned:
        """After one more round; t rounds came before it."""
        share = 1.0 if self.fresh else 1.0 / (t + 1)
        mean = self.mean * (1 - share) + _mean(known).dense() * share
        coefficients = known.products(self.direction) - torch.dot(mean.double(), self.direction.double())
        v = _unit(known.weighted_sum(coefficients).dense() - coefficients.sum().float() * mean)
        if not v.any():
            return _Learned(mean, self.direction, self.scores)
        return _Learned(mean, _unit(self.direction * (1 - share) + v * share), self.scores)


def _mean(known: UpdateMatrix) -> Vector:
    return known.weighted_sum(torch.full((known.n,), 1 / known.n, dtype=torch.float64))


def _unit(vector: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(vector, dtype=torch.float64).float()
    return vector / length if length > 0 else vector


@dataclass(frozen=True)
class _Spread:
    """How the known vectors lie around their mean mu, and to a direction p; float64.

    Attributes:
        products: <x_i - mu, p>, `[k]`.
        length: <p, p>.
        distances: Squared, `[k, k]`.
        from_mean: ||x_i - mu||^2, `[k]`.
    """

    products: Tensor
    length: float
    distances: Tensor
    from_mean: Tensor


class _OppositeMean(Attack):
    """mu + gamma p for the largest gamma >= 0 that a bound on the distances to honest vectors allows."""

    class Options(PluginOptions):
        """Options of min-max and min-sum."""

        p: Literal["unit", "std", "sign"] = "std"
        """The direction: -mu/||mu||, minus the standard deviation, or minus the sign of mu."""

    options: Options
    omniscient = True
    name: ClassVar[str]

    def vector(self, own: Vector, context: AttackContext) -> Vector:
        """float32 `[d]`; the mean where p is zero (identical vectors).

        Raises:
            RunFailed: Fewer than 2 known vectors.
        """
        known = context.require_known(2, self.name)
        spread = self._spread(known)
        gamma = self._gamma(spread) if spread.length > 0 else 0.0
        return of_columns(known, lambda slab: slab.mean(0).add_(self._direction(slab), alpha=gamma))

    @abstractmethod
    def _gamma(self, spread: _Spread) -> float:
        """The largest gamma; the length of p is not zero."""

    def _direction(self, slab: Tensor) -> Tensor:
        if self.options.p == "std":
            return deviation(slab).neg_()
        # -mu instead of -mu / ||mu||: gamma p is the same vector.
        return -slab.mean(0).sign() if self.options.p == "sign" else -slab.mean(0)

    def _spread(self, known: UpdateMatrix) -> _Spread:
        gram = torch.zeros(known.n, known.n, dtype=torch.float64)
        products, length = torch.zeros(known.n, dtype=torch.float64), 0.0
        for _, slab in known.blocks(1 << 14):
            p = self._direction(slab).double()
            centred = slab.double() - slab.double().mean(0)
            gram.addmm_(centred, centred.T)
            products.addmv_(centred, p)
            length += float(p @ p)
        squared = gram.diagonal()
        distances = (squared[:, None] + squared[None, :] - 2 * gram).clamp(min=0)
        return _Spread(products, length, distances, squared)


class MinMax(_OppositeMean):
    """mu + gamma p, farthest with max_i ||. - x_i|| <= max_ij ||x_i - x_j||: no farther from any than honest ones are.

    Shejwalkar, Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for Federated
    Learning" (NDSS 2021), Min-Max. Deviation: gamma is computed exactly, as the least of the larger roots of k
    quadratics; the authors search for it by halving steps. Works against rules that sort out what is far away.
    """

    name = "min-max"

    def _gamma(self, spread: _Spread) -> float:
        b, slack = spread.products, spread.distances.max() - spread.from_mean
        return float(((b + (b.square() + spread.length * slack.clamp(min=0)).sqrt()) / spread.length).min())


class MinSum(_OppositeMean):
    """mu + gamma p, farthest with sum_i ||. - x_i||^2 <= max_i sum_j ||x_i - x_j||^2: no farther from all together.

    Shejwalkar, Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for Federated
    Learning" (NDSS 2021), Min-Sum. Deviation: gamma is computed exactly, not searched for.
    """

    name = "min-sum"

    def _gamma(self, spread: _Spread) -> float:
        # The products add up to zero, since mu is the mean.
        slack = spread.distances.sum(1).max() - spread.from_mean.sum()
        return float((slack.clamp(min=0) / (len(spread.products) * spread.length)).sqrt())
