from __future__ import annotations

import threading
from collections.abc import Sized

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from covey.errors import PluginError, RunFailed, SpecError, TaskError
from covey.learning.models.state import ModelWriter, layout_of
from covey.learning.task import FitSettings, LossOutput, Task
from covey.learning.training import loop
from covey.node.operator.adversary import Drill, check_drill, ordered, parse_options
from covey.spec import parse_toml
from covey.vectors import TensorVector
from covey.worker.execute.updates.adversary import attacked, flipped, poisons_labels
from covey.worker.files.updates import write_raw
from covey.worker.jobs.training import AttackOrder, TrainJob
from covey.worker.program.pipe import Cancelled

D, CLASSES, EXAMPLES = 5 * 4, 4, 40
CPU = torch.device("cpu")


def spec(payload="delta"):
    training = "[training]\nlocal_steps = 1" if payload == "gradient" else ""
    return parse_toml(f'name = "t"\nseed = 3\n[task]\nname = "digits"\n[exchange]\npayload = "{payload}"\n{training}')


def model(value=0.0):
    made = nn.Linear(4, CLASSES)
    for parameter in made.parameters():
        nn.init.constant_(parameter, value)
    return made


def model_file(path, value):
    made = model(value)
    layout = layout_of(made)
    with ModelWriter(path, layout) as writer:
        for tensor in layout.tensors:
            writer.write_tensor(made.state_dict()[tensor.name])
        writer.close()
    return path


def job(tmp_path, number=1, base=0.0, **fields):
    path = model_file(tmp_path / f"base-{number}", base)
    layout = layout_of(model()).canonical_bytes().decode()
    given = {"run": "r", "spec_json": "{}", "layout": layout, "round": number, "roster_index": 2, "num_partitions": 6}
    return TrainJob(**{**given, "base": path, "scratch": {}, **fields})


def sent(order, own, tmp_path, payload="delta", check=lambda: None, **fields):
    vector = attacked(order, TensorVector(own), spec(payload), job(tmp_path, **fields), check)
    return vector.read(slice(0, vector.d)).clone()


# -- what is sent


def test_the_ordered_attack_replaces_the_vector(tmp_path):
    own = torch.randn(D)
    assert torch.equal(sent(AttackOrder("scaled", {"factor": -3}), own, tmp_path), -3 * own)
    assert sent(AttackOrder("nan"), own, tmp_path).isnan().all()


def test_orders_that_cannot_be_followed_say_why(tmp_path):
    with pytest.raises(PluginError, match="no attack named 'tickle'"):
        sent(AttackOrder("tickle"), torch.ones(D), tmp_path)
    with pytest.raises(SpecError, match=r"attack\.options\.factor"):
        sent(AttackOrder("scaled", {"factor": "much"}), torch.ones(D), tmp_path)
    with pytest.raises(RunFailed, match="--attack-group"):
        sent(AttackOrder("ipm"), torch.ones(D), tmp_path)


def test_a_replay_survives_a_new_worker_and_a_round_done_twice(tmp_path):
    order, own = AttackOrder("stale-replay", {"refresh": 2}, memory=tmp_path / "memory"), torch.randn(6, D)
    found = [sent(order, own[number - 1], tmp_path, number=number) for number in (1, 2, 2, 3, 3, 4)]
    assert [next(i for i in range(6) if torch.equal(own[i], x)) for x in found] == [0, 0, 0, 2, 2, 2]
    assert sorted(path.name for path in (tmp_path / "memory").iterdir()) == ["3", "4"]


@pytest.mark.parametrize(("payload", "expected"), [("delta", 0.5), ("gradient", -0.5), ("parameters", 1.5)])
def test_a_lazy_node_sends_what_the_federation_did_last(tmp_path, payload, expected):
    order = AttackOrder("lazy-copy", memory=tmp_path / "memory")
    first = sent(order, torch.ones(D), tmp_path, payload, number=1, base=1.0)
    assert torch.equal(first, torch.full((D,), 1.0 if payload == "parameters" else 0.0))
    second = sent(order, torch.ones(D), tmp_path, payload, number=2, base=1.5)
    assert torch.equal(second, torch.full((D,), expected))


# -- groups


def group(tmp_path, rows):
    files = {f"n{i}": tmp_path / f"n{i}.f32" for i in range(len(rows))}
    for path, row in zip(files.values(), rows, strict=True):
        write_raw(path, TensorVector(row))
    return files


def test_a_group_knows_its_members_vectors(tmp_path):
    rows = torch.randn(3, D)
    order = AttackOrder("ipm", {"epsilon": 2}, group=group(tmp_path, rows))
    torch.testing.assert_close(sent(order, rows[0], tmp_path), -2 * rows.mean(0))


def test_the_numbers_of_nodes_and_adversaries_reach_the_attack(tmp_path):
    files = group(tmp_path, torch.randn(3, D))
    order = AttackOrder("alie", {"z": "auto"}, group=files, nodes=4, attackers=3)
    with pytest.raises(RunFailed, match="n = 4, f = 3"):
        sent(order, torch.ones(D), tmp_path)
    with pytest.raises(RunFailed, match="n = 6, f = 5"):
        sent(AttackOrder("alie", {"z": "auto"}, group=files, attackers=5), torch.ones(D), tmp_path)


def test_it_waits_for_files_that_are_not_whole_yet(tmp_path):
    rows = torch.randn(2, D)
    files = group(tmp_path, rows)
    whole = files["n1"].read_bytes()
    files["n1"].write_bytes(whole[:-4])
    looks = []

    def look():
        looks.append(1)
        if len(looks) == 3:
            files["n1"].write_bytes(whole)

    found = sent(AttackOrder("ipm", {"epsilon": 1}, group=files), rows[0], tmp_path, check=look)
    torch.testing.assert_close(found, -rows.mean(0))
    assert len(looks) == 3


def test_it_makes_do_with_those_that_are_there(tmp_path, capsys):
    rows = torch.randn(2, D)
    files = {**group(tmp_path, rows), "gone": tmp_path / "gone.f32"}
    found = sent(AttackOrder("ipm", {"epsilon": 1}, group=files, wait_s=0.05), rows[0], tmp_path)
    torch.testing.assert_close(found, -rows.mean(0))


def test_the_wait_can_be_cancelled(tmp_path):
    def cancel():
        raise Cancelled

    with pytest.raises(Cancelled):
        sent(AttackOrder("ipm", group={"gone": tmp_path / "gone.f32"}), torch.ones(D), tmp_path, check=cancel)


def test_members_that_wait_for_one_another_send_the_same(tmp_path):
    """As on nodes: each writes its own file, then waits for the others'."""
    rows, found = torch.randn(3, D), {}
    files = {f"n{i}": tmp_path / f"n{i}.f32" for i in range(3)}

    def member(i):
        write_raw(files[f"n{i}"], TensorVector(rows[i]))
        found[i] = sent(AttackOrder("min-max", group=files), rows[i], tmp_path, number=i + 1)

    threads = [threading.Thread(target=member, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


# -- labels


class Classify(Task):
    def model(self):
        return model()

    def train_data(self, data):
        generator = torch.Generator().manual_seed(1)
        return TensorDataset(
            torch.randn(EXAMPLES, 4, generator=generator),
            torch.randint(
                0, CLASSES - 1, (EXAMPLES,), generator=generator
            ),  # the last class is not in this node's data
        )


class OneByOne(Dataset):
    def __init__(self, inner):
        self.inner = inner

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        return tuple(t[index] for t in self.inner.tensors)


class NoLogits(Classify):
    def loss(self, model, batch):
        return LossOutput(model(batch[0]).mean(), len(batch[0]))


def test_labels_are_counted_down_from_the_number_of_outputs():
    data = Classify().train_data(None)
    before = data.tensors[1].clone()
    poisoned = flipped(Classify(), model(), data, CPU)
    assert isinstance(poisoned, TensorDataset)
    assert torch.equal(poisoned.tensors[1], CLASSES - 1 - before)
    assert poisoned.tensors[0] is data.tensors[0]
    assert torch.equal(data.tensors[1], before)


def test_any_map_style_data_set_can_be_flipped():
    data = Classify().train_data(None)
    poisoned = flipped(Classify(), model(), OneByOne(data), CPU)
    assert isinstance(poisoned, Sized)
    assert len(poisoned) == EXAMPLES
    assert all(poisoned[i][1] == CLASSES - 1 - data[i][1] and torch.equal(poisoned[i][0], data[i][0]) for i in range(9))


def test_training_on_flipped_labels_learns_the_flipped_labels():
    """Both forms of the data set train the same model, and it predicts C - 1 - y where an honest one predicts y."""
    task, data, honest = Classify(), Classify().train_data(None), model()
    data.tensors = (data.tensors[0], data.tensors[0].argmax(1))
    settings = spec().training.model_copy(update={"local_epochs": 40, "learning_rate": 1.0})

    def trained(on):
        made = model()
        chosen = on(made)
        loop.train(
            task,
            made,
            chosen,
            FitSettings(settings, torch.arange(EXAMPLES), round=1, rounds=1, seed=0, roster_index=0, device=CPU),
        )
        return made

    honest, bad = trained(lambda made: data), trained(lambda made: flipped(task, made, data, CPU))
    same = trained(lambda made: flipped(task, made, OneByOne(data), CPU))
    guesses = honest(data.tensors[0]).argmax(1)
    assert (guesses == data.tensors[1]).float().mean() > 0.9
    assert (bad(data.tensors[0]).argmax(1) == CLASSES - 1 - data.tensors[1]).float().mean() > 0.9
    assert torch.equal(bad.weight, same.weight)


def test_batch_statistics_are_left_alone():
    normalization = nn.BatchNorm1d(4)
    flipped(Classify(), nn.Sequential(normalization, nn.Linear(4, CLASSES)), Classify().train_data(None), CPU)
    assert normalization.running_mean is not None
    assert torch.equal(normalization.running_mean, torch.zeros(4))


def test_tasks_without_labels_are_refused():
    data = Classify().train_data(None)
    with pytest.raises(TaskError, match="must give logits and targets"):
        flipped(NoLogits(), model(), data, CPU)
    with pytest.raises(TaskError, match=r"batches \(inputs, labels\)"):
        flipped(Classify(), model(), TensorDataset(data.tensors[0]), CPU)


def test_only_label_flip_asks_for_it():
    assert poisons_labels(AttackOrder("label-flip"))
    assert not poisons_labels(AttackOrder("scaled"))
    assert not poisons_labels(None)


# -- the node's side


def test_a_drill_without_a_group_only_adds_an_order(tmp_path):
    made = ordered(Drill("scaled", {"factor": 2}), job(tmp_path), "n1", "ab" * 32, tmp_path)
    assert made.attack == AttackOrder("scaled", {"factor": 2}, memory=tmp_path / "drills" / "r")
    assert made.honest is None


def in_group(tmp_path, number, base="ab" * 32, mode="rounds"):
    text = spec().model_copy(update={"mode": mode}).to_json()
    drill = Drill("ipm", {}, tmp_path / "group", ("n1", "n2"))
    return ordered(drill, job(tmp_path, number, spec_json=text), "n1", base, tmp_path)


def test_a_group_has_a_folder_for_each_round_and_base(tmp_path):
    made, again = in_group(tmp_path, 1), in_group(tmp_path, 1, base="cd" * 32)
    assert made.honest == made.attack.group["n1"] != again.honest
    assert set(made.attack.group) == {"n1", "n2"}
    assert made.attack.attackers == 2


def test_a_node_drops_its_old_vectors_only(tmp_path):
    for number in (1, 2, 3):
        made = in_group(tmp_path, number)
        made.honest.write_bytes(b"")
    made.attack.group["n2"].write_bytes(b"")
    kept = sorted(str(path.relative_to(tmp_path / "group" / "r")) for path in (tmp_path / "group").rglob("*.f32"))
    assert kept == [f"2-{'ab' * 8}/n1.f32", f"3-{'ab' * 8}/n1.f32", f"3-{'ab' * 8}/n2.f32"]


def test_in_an_asynchronous_run_nobody_waits(tmp_path):
    made, later = in_group(tmp_path, 1, mode="async"), in_group(tmp_path, 9, mode="async")
    assert made.honest == later.honest
    assert later.attack.wait_s == 0


def test_options_are_read_as_json_or_as_text():
    assert parse_options(("z=auto", "noise=0.5", "refresh=3", "x=true")) == {
        "z": "auto",
        "noise": 0.5,
        "refresh": 3,
        "x": True,
    }
    for wrong in (("z",), ("=1",), ("z=1", "z=2")):
        with pytest.raises(SpecError, match="write KEY=VALUE"):
            parse_options(wrong)


def test_a_drill_is_checked_with_its_options_before_it_starts():
    check_drill(Drill("scaled", {"factor": -2}), "n1")
    with pytest.raises(PluginError, match="choose alie, constant"):
        check_drill(Drill("tickle"), "n1")
    with pytest.raises(SpecError, match=r"attack\.options\.factor"):
        check_drill(Drill("scaled", {"factor": "x"}), "n1")
