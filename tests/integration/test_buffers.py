"""BatchNorm statistics through real daemons: averaged, and by the median where the rule is robust."""

from __future__ import annotations

import os
import textwrap

import pytest
import torch
from torch import nn

from covey.spec import DataSection
from covey.testing.federation import Federation
from tests.integration.test_learning_options import (
    BATCH,
    NODES,
    assert_same,
    batch_order,
    complete,
    export,
    first_weights,
    sgd,
    shards,
    simulate,
    submit,
    train_locally,
)

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

MEAN, WRECKER = "1.running_mean", NODES - 1
TASKS = textwrap.dedent('''
    import os

    from torch import nn

    from covey.learning.tasks.digits import Digits


    class Normed(Digits):
        """Digits with batch normalization: a model that has buffers."""

        def model(self):
            return nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))


    class Wrecked(Normed):
        """The same; but one node sends a running mean of 1e30, and trains as the others do."""

        def model(self):
            made = super().model()
            if "WRECKS_BUFFERS" in os.environ:
                made[1].register_forward_hook(wreck)
            return made


    def wreck(norm, *_):
        norm.running_mean = norm.running_mean.new_full((16,), 1e30)
''')


def normed():
    return nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("buffers")
    (folder / "normed_tasks.py").write_text(TASKS)
    search = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    with Federation(folder / "federation", NODES, env={"PYTHONPATH": search}) as made:
        made.start_coordinator(options=["--allow-paths"])
        made.join()
        for index in range(NODES):
            allowed = '["normed_tasks:Normed", "normed_tasks:Wrecked"]'
            settings = f'[policy]\nallow_paths = {allowed}\n[worker]\nenvironment = ["WRECKS_BUFFERS"]\n'
            (made.node_dir(index) / "node.toml").write_text(settings)
            made.start_node(index, env={"WRECKS_BUFFERS": "yes"} if index == WRECKER else {})
        made.wait_connected(NODES)
        yield made


def test_buffers_are_averaged_each_in_its_own_dtype(federation, tmp_path):
    section = DataSection(partition="dirichlet", alpha=0.5)
    counts = [len(part) for part in shards(section)]
    assert len({-(-count // BATCH) for count in counts}) > 1  # so that the nodes count different numbers of batches
    assert all(count % BATCH != 1 for count in counts)  # a batch of one cannot be normalized
    extra = '[data]\npartition = "dirichlet"\nalpha = 0.5\n[weights]\nmax_share = 1.0'
    run = submit(federation, "normed", task="normed_tasks:Normed", extra=extra)
    complete(federation, run)
    found = export(federation, run, tmp_path / "model.safetensors")
    assert_same(found, simulate(2, make=normed, section=section), atol=1e-4)
    model = normed()
    model.load_state_dict(found, strict=True)
    assert model[1].num_batches_tracked.dtype == found["1.num_batches_tracked"].dtype == torch.int64
    assert model[1].num_batches_tracked > 2


def local_states():
    """What each node has after the first round, if it is honest."""
    states = []
    for k, part in enumerate(shards()):
        model = normed()
        model.load_state_dict(first_weights(normed))
        train_locally(model, batch_order(part, 1, k), sgd(model.parameters(), 1))
        states.append(model.state_dict())
    return states


def trained(federation, path, rule):
    extra = f'[aggregation]\nname = "{rule}"\n[exchange]\npayload = "parameters"'
    run = submit(federation, f"wrecked-{rule}", task="normed_tasks:Wrecked", rounds=1, extra=extra)
    return complete(federation, run), export(federation, run, path)


def test_one_node_cannot_move_a_buffer_where_the_rule_is_robust(federation, tmp_path):
    shown, found = trained(federation, tmp_path / "median.safetensors", "median")
    honest = local_states()
    honest[WRECKER][MEAN].fill_(1e30)
    expected = {
        name: torch.stack([state[name].double() for state in honest]).median(0).values.to(value.dtype)
        for name, value in honest[0].items()
    }
    assert_same(found, expected, atol=1e-4)
    assert found[MEAN].abs().max() < 10
    assert shown["metrics"]["accuracy"] > 0.4
    # The same node against the mean: it does send what it should.
    _, averaged = trained(federation, tmp_path / "mean.safetensors", "mean")
    assert averaged[MEAN].min() > 1e29
