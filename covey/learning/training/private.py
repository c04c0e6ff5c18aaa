"""DP-SGD: local training whose steps hide whether one example is among the node's.

Abadi et al., "Deep learning with differential privacy" (CCS 2016, arXiv 1607.00133), algorithm 1. In each step every
example is drawn by itself with probability q (Poisson sampling); the gradient of each is clipped to norm C over all
tensors; the sum gets noise N(0, z^2 C^2) and is divided by the expected number of examples, q n. What the optimizer,
the server and everybody after them make of these steps spends nothing further.
"""

from __future__ import annotations

import math
import secrets
import time
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from covey.learning.models.entries import unwrapped
from covey.learning.optimizers import local_optimizer
from covey.learning.privacy import private_steps
from covey.learning.task import FitResult, FitSettings, Task
from covey.learning.training import loop
from covey.learning.training.per_example import Gradients, clipped_sum, refuse_what_mixes
from covey.seeds import derive_seed
from covey.spec import PrivacySection
from covey.vectors.secret_noise import KEY_BYTES, chosen, normal, subkey


def train_privately(
    task: Task, model: nn.Module, dataset: Dataset[Any], fit: FitSettings, privacy: PrivacySection
) -> FitResult:
    """Train a model in place; two trainings differ, unless `privacy.reproducible`.

    Args:
        task: Gives the loss; it is asked for one example at a time, as in `per_example.per_example_sum`.
        model: As for `covey.learning.training.loop.train`.
        dataset: Map-style.
        fit: Which examples, for which round and node; nobody is told of a loss, and `batch_size` and `clip_norm` have
            no part in it.
        privacy: Of unit "example".

    Returns:
        No metrics: each would have to be paid for like a gradient. How many examples the node has is no secret.

    Raises:
        SpecError: The task has a training of its own, or the model has layers that mix the examples (BatchNorm).
        TaskError: The task's code failed, a gradient is not finite, or there are no examples.
    """
    model = unwrapped(model)
    refuse_what_mixes(task, model, 'privacy.unit: "example"')
    steps, key = private_steps(privacy, fit.training), _key(fit, privacy)
    with loop.ready(model, fit, "private training"):
        optimizer = local_optimizer(model.parameters(), fit.training, fit.round, fit.rounds)
        due = time.monotonic() + loop.PROGRESS_INTERVAL_S
        for step in range(1, steps + 1):
            among = fit.indices[chosen(subkey(key, f"examples/{step}"), len(fit.indices), privacy.sampling)]
            total = clipped_sum(task, model, dataset, fit, among, privacy.clip)
            _set_gradients(model, total, subkey(key, f"noise/{step}"), privacy, len(fit.indices))
            optimizer.step()
            fit.each_step()
            if (now := time.monotonic()) >= due:
                due = now + loop.PROGRESS_INTERVAL_S
                fit.progress(step, steps, math.nan)
    return FitResult(len(fit.indices), steps, {})


def _set_gradients(model: nn.Module, total: Gradients, key: bytes, privacy: PrivacySection, examples: int) -> None:
    """(sum + z C N(0, 1)) / (q n), into the parameters' `.grad`; the noise is added in float64."""
    at, deviation, expected = 0, privacy.noise * privacy.clip, privacy.sampling * examples
    for name, parameter in model.named_parameters():
        if name in total:
            noise = normal(key, at, parameter.numel()).reshape(parameter.shape).to(parameter.device)
            noisy: Tensor = (total[name].double() + deviation * noise) / expected
            parameter.grad = noisy.to(parameter.dtype)
            at += parameter.numel()


def _key(fit: FitSettings, privacy: PrivacySection) -> bytes:
    """A fresh secret; or, where the run is only to look private, what everybody can make of its seed."""
    if not privacy.reproducible:
        return secrets.token_bytes(KEY_BYTES)
    seed = derive_seed(fit.seed, "privacy", fit.round, fit.roster_index)
    return subkey(seed.to_bytes(KEY_BYTES, "big"), "reproducible")
