"""Two processes with a share of the batch each have loss and gradient of one process with all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from covey.learning.representations.gather import Alone, gathering

pytestmark = pytest.mark.timeout(200)
SCRIPT = '''
"""Rank 1 is a fork of rank 0: torch is imported once."""

import os
import sys
import traceback
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.nn import functional

from covey.learning.representations.gather import Alone, gathering
from covey.learning.representations.neighbours import Support, contrastive_loss, paws_terms, suncet_loss

torch.set_num_threads(1)
folder, LOCAL, CLASSES = sys.argv[1], 6, 3
rank = 0 if os.fork() else 1


def losses(weight, first, second, images, labels, bank, gather):
    support = Support(images @ weight, labels)
    terms = paws_terms(first @ weight, second @ weight, support, gather=gather)
    banked = paws_terms(first @ weight, second @ weight, support, bank=bank, gather=gather)
    return {
        "consistency": terms.consistency,
        "negative entropy": terms.negative_entropy,
        "with a bank": banked.consistency + banked.negative_entropy,
        "suncet": suncet_loss(support, gather=gather),
        "simclr": contrastive_loss(first @ weight, second @ weight, gather=gather),
    }


def gradients(made, weight):
    return {name: torch.autograd.grad(loss, weight, retain_graph=True)[0] for name, loss in made.items()}


def main():
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(seconds=90))
    gather = gathering()
    assert gather.rank == rank
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    weight = draw(5, 4).requires_grad_()
    first = draw(2 * LOCAL, 5)
    second = first + 0.3 * draw(2 * LOCAL, 5)
    images = draw(2 * LOCAL, 5)
    labels = functional.one_hot(torch.arange(2 * LOCAL) % CLASSES, CLASSES).double()
    bank = Support(draw(4, 4), functional.one_hot(torch.arange(4) % CLASSES, CLASSES).double())
    own = slice(rank * LOCAL, (rank + 1) * LOCAL)
    share = losses(weight, first[own], second[own], images[own], labels[own], bank, gather)
    slopes = gradients(share, weight)
    whole = losses(weight, first, second, images, labels, bank, Alone())
    for name, slope in gradients(whole, weight).items():
        value = share[name].detach().clone()
        for mean in (value, slopes[name]):
            dist.all_reduce(mean)
            mean /= 2
        assert torch.allclose(value, whole[name], rtol=1e-12), (name, value, whole[name])
        assert torch.allclose(slopes[name], slope, rtol=1e-9, atol=1e-12), (name, slopes[name], slope)
        assert slope.abs().max() > 1e-3, name
        apart = share[name].detach() if name != "with a bank" else None
        if apart is not None and name != "negative entropy":
            alone = losses(weight, first[own], second[own], images[own], labels[own], bank, Alone())[name]
            assert not torch.allclose(alone, apart), name
    dist.destroy_process_group()


try:
    main()
    open(f"{folder}/done-{rank}", "w").close()
except BaseException:
    traceback.print_exc()
    os._exit(1)
if rank == 0:
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
os._exit(0)
'''


def test_loss_and_gradient_are_those_of_the_concatenated_batch(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("done-*")} == {"done-0", "done-1"}


def test_a_process_alone_has_its_own() -> None:
    gather, x = gathering(), torch.randn(3, 2)
    assert isinstance(gather, Alone)
    assert torch.equal(gather.rows(x), x)
    assert torch.equal(gather.mean(x), x)
