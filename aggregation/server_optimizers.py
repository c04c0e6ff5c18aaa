"""Server optimizers: how the direction of a round becomes the next version of the model.

All of them work on any block of columns alone, so the caller walks through mapped files and holds a few
blocks. A direction points the way the model is to go (it is minus the field's pseudo-gradient), hence the
plus signs.

`sgd` with learning rate 1 is federated averaging. Each of the others is an optimizer of the textbook, applied
to the pseudo-gradient. Source: Reddi et al., "Adaptive Federated Optimization" (ICLR 2021, arXiv 2003.00295;
FedOpt, Algorithms 1, 2). Weight decay is the nodes' business.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field, JsonValue
from torch import Tensor

from covey.aggregation.momentum_stability import percentile, stable_momentum
from covey.options import PluginOptions
from covey.plugins import Kind, Pluggable

LearningRate = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Blocks = dict[str, Tensor]
"""Slot to one block of its state vector, float32 `[b]`."""


class ServerOptimizer(Pluggable):
    """Turns base model and direction into the next model. Knows nothing of files, rounds or nodes.

    Class attributes:
        Options: The model of the optimizer's options (`[server_optimizer.options]`).
        slots: Names of its state vectors, each float32 `[d]`, kept by the caller from step to step.
    """

    slots: ClassVar[tuple[str, ...]] = ()

    def initial(self, slot: str) -> float:
        """The value that every element of a state vector has before the first step."""
        return 0.0

    def begin(self, step: int, staleness: Sequence[int] = ()) -> None:
        """Called once before the blocks of a step.

        Args:
            step: Counts the optimizer's steps from 1; at step 1 the contents of the state vectors do not
                matter.
            staleness: In an asynchronous run how many versions each of the last accepted updates was behind,
                oldest first, this step's last; in rounds none are.
        """
        if step < 1:
            raise ValueError(f"steps count from 1, not {step}")

    def step_block(
        self, base: Tensor, direction: Tensor, state: Blocks, step: int, out: Tensor | None = None
    ) -> Tensor:
        """One step on one block of columns.

        Args:
            base: The model's values, float32 `[b]`; not modified.
            direction: Where it is to go, float32 `[b]`; not modified.
            state: Slot to this block of the state vector, float32 `[b]`: modified in place, at step 1 set up
                first.
            step: As given to `begin`.
            out: Where to put the new values, float32 `[b]`, overlapping no other argument; else new memory.

        Returns:
            The new values, float32 `[b]`.
        """
        if step == 1:
            for slot in self.slots:
                state[slot].fill_(self.initial(slot))
        out = torch.empty_like(base) if out is None else out
        self.update(base, direction, state, step, out)
        return out

    @abstractmethod
    def update(self, base: Tensor, direction: Tensor, state: Blocks, step: int, out: Tensor) -> None:
        """The formula: arguments as of `step_block`, the state set up, the result to be left in `out`."""


SERVER_OPTIMIZERS = Kind("server-optimizer", "covey.server_optimizers", ServerOptimizer, "server_optimizer")


class SGD(ServerOptimizer):
    """x <- x + lr d. With lr = 1 and the rule `mean`: federated averaging."""

    class Options(PluginOptions):
        """Options of `sgd`."""

        learning_rate: LearningRate = 1.0

    options: Options

    def update(self, base: Tensor, direction: Tensor, state: Blocks, step: int, out: Tensor) -> None:
        """The formula: x + lr d."""
        torch.add(base, direction, alpha=self.options.learning_rate, out=out)


class Momentum(ServerOptimizer):
    """v <- mu v + d;  x <- x + lr v.

    The update of `torch.optim.SGD(momentum=mu)`. Source: FedAvgM (Hsu et al., arXiv 1909.06335), with d the
    mean delta; SlowMo's outer step (Wang et al., ICLR 2020, arXiv 1910.00643) with slow learning rate lr,
    its u scaled by the inner learning rate; classical block momentum (Cong & Liu, arXiv 2110.00625) with v
    scaled by lr, the same while lr is constant.

    `staleness_aware` (asynchronous runs): mu is lowered to what is stable at the staleness that the last updates
    had, see `stable_momentum`. That momentum must be lower with staleness is the result of the analyses of
    asynchronous momentum SGD; this way to choose it is ours.
    """

    class Options(PluginOptions):
        """Options of `momentum`."""

        learning_rate: LearningRate = 1.0
        momentum: Decay = 0.9
        """mu."""
        staleness_aware: bool = False
        """Lower mu where updates are stale (mode "async"); not together with a policy's dampening, as a rule: to
        damp the step or the momentum is enough."""
        staleness_percentile: Annotated[float, Field(gt=0, le=1)] = 0.9
        """Which of the last updates' staleness mu is made for."""
        step_curvature: Annotated[float, Field(gt=0)] = 0.2
        """The learning rate in all (node's times server's) times the largest curvature that mu is made for; the
        default is twice 0.1, as a margin."""

    options: Options
    slots = ("momentum",)

    def __init__(self, options: Mapping[str, JsonValue] | None = None) -> None:
        """Check the options.

        Raises:
            SpecError: An option is unknown or has a wrong value.
        """
        super().__init__(options)
        self.momentum = self.options.momentum

    def begin(self, step: int, staleness: Sequence[int] = ()) -> None:
        """Choose this step's mu (`self.momentum`)."""
        super().begin(step, staleness)
        self.momentum = self.options.momentum
        if self.options.staleness_aware and staleness:
            tau = percentile(staleness, self.options.staleness_percentile)
            self.momentum = min(self.momentum, stable_momentum(tau, self.options.step_curvature))

    def update(self, base: Tensor, direction: Tensor, state: Blocks, step: int, out: Tensor) -> None:
        """The formula: x + lr (mu v + d)."""
        velocity = state["momentum"].mul_(self.momentum).add_(direction)
        torch.add(base, velocity, alpha=self.options.learning_rate, out=out)


class Nesterov(ServerOptimizer):
    """v <- mu v + d;  x <- x + lr (d + mu v).

    Textbook Nesterov block momentum: the update of `torch.optim.SGD(nesterov=True)`. Source: the outer step
    of DiLoCo (Douillard et al., arXiv 2311.08105; its defaults) and BMUF-NBM (Chen & Huo, ICASSP 2016), with
    the look-ahead point as the model. Deviation from fairseq's block momentum, on purpose: that one keeps the
    look-ahead point as the new base too, which makes its steady step 1 + mu times the textbook's.
    """

    class Options(PluginOptions):
        """Options of `nesterov`."""

        learning_rate: LearningRate = 0.7
        momentum: Decay = 0.9
        """mu."""

    options: Options
    slots = ("momentum",)

    def update(self, base: Tensor, direction: Tensor, state: Blocks, step: int, out: Tensor) -> None:
        """The formula: x + lr (d + mu (mu v + d))."""
        momentum = self.options.momentum
        velocity = state["momentum"].mul_(momentum).add_(direction)
        torch.add(direction, velocity, alpha=momentum, out=out)
        out.mul_(self.options.learning_rate).add_(base)


class AdaptiveOptions(PluginOptions):
    """Options of `adam` and `yogi`: the paper's, but for the learning rate, which it tunes for each task."""

    learning_rate: LearningRate = 0.01
    beta1: Decay = 0.9
    beta2: Decay = 0.99
    tau: Annotated[float, Field(gt=0)] = 1e-3
    """Degree of adaptivity: added to the root of the second moment, whose first value is its square."""
    bias_correction: bool = False
    """Correct both moments for their start at zero (Kingma & Ba, ICLR 2015), and start the second at zero."""


class _Adaptive(ServerOptimizer):
    """m <- b1 m + (1 - b1) d;  v <- (the subclass's);  x <- x + lr m / (sqrt(v) + tau)."""

    Options = AdaptiveOptions
    options: AdaptiveOptions
    slots = ("first_moment", "second_moment")

    def initial(self, slot: str) -> float:
        """0, but the second moment tau^2 (the paper's v_-1 >= tau^2), unless biases are corrected."""
        return self.options.tau**2 if slot == "second_moment" and not self.options.bias_correction else 0.0

    @abstractmethod
    def accumulate(self, second: Tensor, direction: Tensor, scratch: Tensor) -> None:
        """Update the second moment in place; `scratch` `[b]` is free to use."""

    def update(self, base: Tensor, direction: Tensor, state: Blocks, step: int, out: Tensor) -> None:
        """FedOpt, Algorithm 2: the server's part."""
        o = self.options
        first, second = state["first_moment"], state["second_moment"]
        first.mul_(o.beta1).add_(direction, alpha=1 - o.beta1)
        self.accumulate(second, direction, out)
        rate = o.learning_rate
        torch.sqrt(second, out=out)
        if o.bias_correction:
            out.div_(math.sqrt(1 - o.beta2**step))
            rate /= 1 - o.beta1**step
        torch.div(first, out.add_(o.tau), out=out)
        out.mul_(rate).add_(base)


class Adam(_Adaptive):
    """FedAdam (FedOpt, Algorithm 2): v <- b2 v + (1 - b2) d^2.

    As in the paper there is no bias correction and v starts at tau^2. With `bias_correction` it is
    `torch.optim.Adam` on the pseudo-gradient, eps = tau.
    """

    def accumulate(self, second: Tensor, direction: Tensor, scratch: Tensor) -> None:
        """The formula: b2 v + (1 - b2) d^2."""
        beta2 = self.options.beta2
        second.mul_(beta2).addcmul_(direction, direction, value=1 - beta2)


class Yogi(_Adaptive):
    """FedYogi (FedOpt, Algorithm 2): v <- v - (1 - b2) d^2 sign(v - d^2).

    Where d^2 is below v, v falls by the size of d^2 and not of v: after a large step the learning rate comes
    back slowly.
    """

    def accumulate(self, second: Tensor, direction: Tensor, scratch: Tensor) -> None:
        """The formula: v - (1 - b2) d^2 sign(v - d^2)."""
        squared = torch.mul(direction, direction, out=scratch)
        sign = torch.sub(second, squared).sign_()
        second.addcmul_(squared, sign, value=-(1 - self.options.beta2))


class Adagrad(ServerOptimizer):
    """FedAdagrad (FedOpt, Algorithm 2): v <- v + d^2;  x <- x + lr d / (sqrt(v) + tau), v starting at tau^2.

    The paper's experiments set b1 = 0 for this one; here it has no first moment at all, which is the same.
    """

    class Options(PluginOptions):
        """Options of `adagrad`."""

        learning_rate: LearningRate = 0.1
        tau: Annotated[float, Field(gt=0)] = 1e-3
        """Degree of adaptivity: added to the root of the accumulator, whose first value is its square."""

    options: Options
    slots = ("accumulator",)

    def initial(self, slot: str) -> float:
        """The paper's v_-1: tau^2."""
        return self.options.tau**2

    def update(self, base: Tensor, direction: Tensor, state: Blocks, step: int, out: Tensor) -> None:
        """The formula: x + lr d / (sqrt(v + d^2) + tau)."""
        accumulator = state["accumulator"].addcmul_(direction, direction)
        torch.sqrt(accumulator, out=out).add_(self.options.tau)
        torch.div(direction, out, out=out)
        out.mul_(self.options.learning_rate).add_(base)
