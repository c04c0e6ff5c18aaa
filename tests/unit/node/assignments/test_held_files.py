import asyncio
import threading

from structlog.testing import capture_logs

from covey.artifact import artifact_of
from covey.node.assignments.held_files import MAX_RUNS, HeldFiles


def put(node, *texts):
    """Files with these contents; their digests."""
    digests = []
    for text in texts:
        artifact = artifact_of([text.encode()])
        node.files.put(artifact, text.encode())
        digests.append(artifact.digest)
    return digests


def test_a_run_s_files_are_kept_until_its_next_are_here(node):
    first, beside, second = put(node, "first", "beside", "second")
    held = HeldFiles(node.files, node.store)
    held.hold("a", first, [beside])
    assert held.model("a") == first
    held.hold("a", second, [beside])
    assert (held.model("a"), node.on_disk()) == (second, {second, beside})


def test_what_is_of_no_more_use_makes_way_for_what_comes(node):
    first, shared, layout, second = put(node, "first", "shared", "layout", "second")
    held = HeldFiles(node.files, node.store)
    held.hold("b", shared)
    held.hold("a", first, [shared, layout])
    held.keep_only("a", [second, layout])
    assert (held.model("a"), node.on_disk()) == ("", {shared, layout, second})
    held.forget("a")
    assert node.on_disk() == {shared}


def test_what_another_run_holds_too_stays(node):
    shared, mine = put(node, "shared", "mine")
    held = HeldFiles(node.files, node.store)
    held.hold("a", shared)
    held.hold("b", shared)
    held.hold("a", mine)
    assert node.on_disk() == {shared, mine}
    held.forget("b")
    assert node.on_disk() == {mine}
    assert held.model("b") == ""


def test_the_run_that_was_served_longest_ago_goes_first(node):
    models = put(node, *(f"model {k}" for k in range(MAX_RUNS + 1)))
    held = HeldFiles(node.files, node.store)
    for k in range(MAX_RUNS):
        held.hold(f"r{k}", models[k])
    held.hold("r0", models[0])
    with capture_logs() as logs:
        held.hold("new", models[-1])
    assert [(entry["log_level"], entry["run"]) for entry in logs] == [("warning", "r1")]
    assert node.on_disk() == set(models) - {models[1]}


def test_abandoned_files_are_dropped_once_nobody_writes_them(node):
    held, paths = HeldFiles(node.files, node.store), [node.files.scratch(4) for _ in range(2)]
    paths[0].write_bytes(b"half")
    held.abandon(paths)
    assert paths[0].exists()
    held.discard_abandoned()
    assert not any(path.exists() for path in paths)


def test_what_is_expected_stays_until_it_is_known_what_is_of_use(node):
    first, came, second = put(node, "first", "came", "second")
    held = HeldFiles(node.files, node.store)
    held.hold("a", first)
    held.expect("a", [came])
    held.release([first, came])
    assert (held.model("a"), node.on_disk()) == (first, {first, came, second})
    held.hold("a", second)
    assert node.on_disk() == {second}


async def test_work_that_was_cancelled_ends_before_other_work_begins(node):
    held, steps = HeldFiles(node.files, node.store), []
    begun, go_on = threading.Event(), threading.Event()

    def slow():
        begun.set()
        go_on.wait(20)
        steps.append("slow")

    first = asyncio.create_task(held.alone(slow))
    await asyncio.to_thread(begun.wait, 20)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.create_task(held.alone(steps.append, "next"))
    assert held.lock.locked()
    go_on.set()
    await second
    assert (first.cancelled(), steps) == (True, ["slow", "next"])
