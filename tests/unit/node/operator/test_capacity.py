"""What a node tells its coordinator of its room for runs."""

from __future__ import annotations

from covey.node.operator import capacity
from covey.node.operator.config import Limits, NodeConfig, NodeSettings
from covey.node.operator.policy import Policy

GIB = 1 << 30


def config(folder, **settings):
    return NodeConfig(folder, settings=NodeSettings(**settings))


def test_one_run_for_each_gib_that_is_free_or_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(capacity, "free_memory", lambda: 6 * GIB + 1)
    assert capacity.most_runs(config(tmp_path)) == 6
    assert capacity.most_runs(config(tmp_path, limits=Limits(memory_gib=2))) == 2
    assert capacity.memory_for_runs(config(tmp_path, limits=Limits(memory_gib=2))) == 2 * GIB
    assert capacity.most_runs(config(tmp_path, limits=Limits(memory_gib=0.1))) == 1
    assert capacity.most_runs(config(tmp_path, policy=Policy(max_runs=9))) == 9
    monkeypatch.setattr(capacity, "free_memory", lambda: 600 * GIB)
    assert capacity.most_runs(config(tmp_path)) == capacity.MOST_RUNS


def test_what_a_container_may_have_counts_where_it_is_less(tmp_path):
    def write(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def group(folder, limit, used, cached, names=("max", "current", "")):
        for name, text in zip(names, (limit, used), strict=False):
            write(f"sys/fs/cgroup/{folder}/memory.{name}", f"{text}\n")
        write(f"sys/fs/cgroup/{folder}/memory.stat", f"anon 1\n{names[2]}inactive_file {cached}\n")

    assert capacity.free_memory(tmp_path) == 0
    write("proc/meminfo", f"MemTotal: 1 kB\nMemAvailable: {100 * GIB >> 10} kB\n")
    assert capacity.free_memory(tmp_path) == 100 * GIB
    write("proc/self/cgroup", "0::/slurm/job/../step\n")
    group("slurm", 8 * GIB, 3 * GIB, GIB)
    group("slurm/job", "max", GIB, 0)
    assert capacity.free_memory(tmp_path) == 6 * GIB
    group("", 2 * GIB, GIB, 0)  # a container's own, whose path on the machine it does not see
    assert capacity.free_memory(tmp_path) == GIB
    group("", 2 * GIB, 3 * GIB, 0)
    assert capacity.free_memory(tmp_path) == 1, "nothing is not the same as unknown"
    write("proc/self/cgroup", "5:cpu:/a\n4:memory:/a/b\n")
    assert capacity.free_memory(tmp_path) == 100 * GIB
    group("memory/a", 4 * GIB, GIB, 0, ("limit_in_bytes", "usage_in_bytes", "total_"))
    assert capacity.free_memory(tmp_path) == 3 * GIB


def test_a_machine_that_does_not_say_has_no_limit(tmp_path, monkeypatch):
    assert capacity.free_memory() > 0
    monkeypatch.setattr(capacity, "free_memory", lambda: 0)
    assert (capacity.most_runs(config(tmp_path)), capacity.memory_for_runs(config(tmp_path))) == (0, 0)
    assert capacity.memory_for_runs(config(tmp_path, limits=Limits(memory_gib=2))) == 2 * GIB
