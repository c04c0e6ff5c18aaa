"""Updates on their way in: what is checked, in which order, and that each run's offers are its own."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from covey import messages as msg
from covey.artifact import artifact_of
from covey.coordinator.runs.offers import NODE_NOTICE
from covey.coordinator.runs.sent_again import Resent
from covey.coordinator.runs.unfinished import UnfinishedUploads
from covey.errors import PUBLIC_TEXTS, DiskFull, NotFound, Obstructed, StoreError, StoreUnavailable, TransferError
from covey.machines.protocol import NodeAnswered
from covey.wire.identities.signing import ReceiptStatement, SigningKey


@pytest.fixture
async def opened(world):
    """Opens the first round of runs, and gives the assignment of a node: `await opened("run")["ada"]`."""

    async def open_rounds(*runs):
        for run in runs:
            world.submit(run)
            world.execute(run)
        assignments = {}
        for run in runs:
            await world.nodes.until(lambda run=run: len(assigned(world, run)) == 2)
            assignments[run] = assigned(world, run)
        return assignments

    return open_rounds


def assigned(world, run):
    return {node: m for node, m in world.nodes.sent if isinstance(m, msg.Assignment) and m.run == run}


def verdicts(world, run="run"):
    return {update.node: update.verdict for update in world.record.updates(run, 1)}


async def heard(world, run, node):
    """What the record says of a node's part in round 1, once it says something."""
    while node not in verdicts(world, run):
        await world.changes.after(world.changes.count)
    return next(update for update in world.record.updates(run, 1) if update.node == node)


async def test_a_good_update_is_durable_before_its_signed_receipt(world, opened):
    assignment = (await opened("run"))["run"]["ada"]
    offer = world.update_of("ada", assignment)
    await world.offers.offer("ada", offer)
    (receipt,) = world.nodes.got(msg.Receipt, "ada")
    statement = ReceiptStatement.from_bytes(receipt.statement)
    assert (statement.run, statement.round, statement.node) == ("run", 1, "ada")
    assert statement.update == receipt.update == hashlib.sha256(offer.statement).hexdigest()
    (update,) = world.record.updates("run", 1)
    assert update.statement == offer.statement
    assert world.files.path(update.parts[0].artifact.digest).read_bytes() == offer.parts[0].data


async def test_an_update_counts_in_its_round_whose_node_is_gone_while_it_is_recorded(world, opened, monkeypatch):
    assignment = (await opened("run"))["run"]["ada"]
    begun, go_on, record = threading.Event(), threading.Event(), world.record.record_update

    def slow(update):
        begun.set()
        go_on.wait(60)
        return record(update)

    monkeypatch.setattr(world.record, "record_update", slow)
    call = asyncio.create_task(world.offers.offer("ada", world.update_of("ada", assignment)))
    await asyncio.to_thread(begun.wait, 60)
    call.cancel()  # as its stream is, when a node is killed
    go_on.set()
    await world.nodes.until(lambda: world.nodes.got(msg.Receipt, "ada"))
    assert verdicts(world) == {"ada": "received"}
    machine = world.runs.of("run").machine
    for _ in range(6000):
        if machine.answers.get("ada") == "received":
            break
        await asyncio.sleep(0.01)
    assert machine.answers.get("ada") == "received"


async def test_the_same_update_twice_gets_two_receipts_and_another_one_none(world, opened):
    assignment = (await opened("run"))["run"]["ada"]
    offer = world.update_of("ada", assignment)
    for _ in range(2):
        await world.offers.offer("ada", offer)
    assert len(world.nodes.got(msg.Receipt, "ada")) == 2
    await world.offers.offer("ada", world.update_of("ada", assignment, b"another"))
    (refusal,) = world.nodes.got(msg.Refusal, "ada")
    assert refusal.code == "conflict"
    assert verdicts(world) == {"ada": "received"}


@pytest.mark.parametrize("error", [DiskFull, Obstructed, StoreError, StoreUnavailable])
async def test_a_refusal_says_nothing_of_this_machines_folders_and_the_log_does(world, opened, monkeypatch, error):
    assignment = (await opened("run"))["run"]["ada"]

    def fail(*_):
        raise error("cannot write /srv/covey/files/artifacts/ab12")

    monkeypatch.setattr(world.files, "put", fail)
    with capture_logs() as logs:
        await world.offers.offer("ada", world.update_of("ada", assignment))
    (refusal,) = world.nodes.got(msg.Refusal, "ada")
    assert (refusal.code, refusal.reason) == (error.code, PUBLIC_TEXTS[error.code])
    assert "/srv" not in refusal.reason
    assert any("/srv/covey/files" in str(line.get("error")) for line in logs)


async def test_what_an_update_met_is_shown_until_one_of_its_run_comes_through(world, opened, monkeypatch):
    rounds = await opened("one", "two")
    one, two = (world.update_of("ada", rounds[run]["ada"]) for run in ("one", "two"))
    shown = world.offers._services.store.obstacle.text

    def fail(*_):
        raise DiskFull("no room")

    with monkeypatch.context() as patched:
        patched.setattr(world.files, "put", fail)
        await world.offers.offer("ada", one)
    await world.offers.offer("ada", two)
    assert (shown("one"), shown("two")) == ("no room", "")
    await world.offers.offer("ada", one)
    assert shown("one") == ""


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"weight": 0.0}, "invalid-update"),
        ({"weight": 1e13}, "invalid-update"),
        ({"parts": ()}, "invalid-update"),
        ({"federation": "another"}, "identity"),
        ({"node": "bob"}, "identity"),
        ({"key": "0" * 32}, "identity"),
    ],
)
async def test_what_is_wrong_with_an_update_is_its_nodes_answer(world, opened, changes, code):
    assignment = (await opened("run"))["run"]["ada"]
    await world.offers.offer("ada", world.update_of("ada", assignment, **changes))
    (refusal,) = world.nodes.got(msg.Refusal, "ada")
    assert refusal.code == code
    update = await heard(world, "run", "ada")
    assert (update.verdict, update.reason.partition(":")[0]) == ("rejected", code)


async def test_a_signature_of_another_key_is_refused(world, opened):
    assignment = (await opened("run"))["run"]["ada"]
    offer = world.update_of("ada", assignment)
    forged = replace(offer, signature=SigningKey.generate().sign(offer.statement))
    await world.offers.offer("ada", forged)
    assert [refusal.code for refusal in world.nodes.got(msg.Refusal)] == ["identity"]
    assert (await heard(world, "run", "ada")).verdict == "rejected"


async def test_an_update_of_another_base_is_refused_but_the_node_may_still_send_the_right_one(world, opened):
    assignment = (await opened("run"))["run"]["ada"]
    await world.offers.offer("ada", world.update_of("ada", assignment, base="0" * 64))
    assert [refusal.code for refusal in world.nodes.got(msg.Refusal)] == ["conflict"]
    await world.offers.offer("ada", world.update_of("ada", assignment))
    assert verdicts(world) == {"ada": "received"}


async def test_an_offer_that_is_looked_at_while_its_run_is_taken_up_is_to_be_made_again(world, opened, monkeypatch):
    assignment = (await opened("run"))["run"]["ada"]
    run = world.runs.active["run"]
    machine, looked = run.machine, world.offers._already_here

    async def meanwhile(*offer):
        run.machine = machine
        return await looked(*offer)

    monkeypatch.setattr(world.offers, "_already_here", meanwhile)
    run.machine = None
    await world.offers.offer("ada", world.update_of("ada", assignment))
    assert [refusal.code for refusal in world.nodes.got(msg.Refusal)] == ["not-ready"]
    await world.offers.offer("ada", world.update_of("ada", assignment))
    assert verdicts(world) == {"ada": "received"}


async def test_a_file_that_is_not_the_announced_one_is_refused(world, opened):
    assignment = (await opened("run"))["run"]["ada"]
    offer = world.update_of("ada", assignment)
    swapped = replace(offer, parts=(replace(offer.parts[0], data=b"x" * len(offer.parts[0].data)),))
    await world.offers.offer("ada", swapped)
    assert [refusal.code for refusal in world.nodes.got(msg.Refusal)] == ["corrupt-chunk"]


async def test_what_comes_too_late_or_too_early_is_said(world, opened):
    assignment = (await opened("run"))["run"]["ada"]
    await world.offers.offer("ada", world.update_of("ada", assignment, round=2))
    assert [refusal.code for refusal in world.nodes.got(msg.Refusal)] == ["late"]
    world.runs.active.clear()
    await world.offers.offer("ada", world.update_of("ada", assignment))
    assert world.nodes.got(msg.Refusal)[-1].code == "not-ready"


# -- several runs


async def test_each_run_has_offers_of_its_own(world, opened):
    rounds = await opened("one", "two")
    for run in ("one", "two"):
        await world.offers.offer("ada", world.update_of("ada", rounds[run]["ada"]))
    for run in ("one", "two"):
        assert verdicts(world, run) == {"ada": "received"}


async def test_a_wrong_update_is_an_answer_in_its_own_run_only(world, opened):
    rounds = await opened("one", "two")
    await world.offers.offer("ada", world.update_of("ada", rounds["two"]["ada"], weight=0.0))
    assert (await heard(world, "two", "ada")).verdict == "rejected"
    assert verdicts(world, "one") == {}


async def test_bytes_that_are_no_statement_are_an_answer_where_only_one_run_can_be_meant(world, opened):
    await opened("one")
    noise = msg.UpdateOffer(b"noise", b"", ())
    await world.offers.offer("ada", noise)
    assert (await heard(world, "one", "ada")).verdict == "rejected"
    await opened("two")
    world.submit("three")
    world.execute("three")
    await world.nodes.until(lambda: len(assigned(world, "three")) == 2)
    await world.offers.offer("bob", noise)
    refusals = world.nodes.got(msg.Refusal, "bob")
    assert len(refusals) == 1
    assert "bob" not in verdicts(world, "two") | verdicts(world, "three")


# -- uploads


def large(world, node, assignment, content):
    """An offer without its file, and the file."""
    offer = world.update_of(node, assignment, content)
    part = offer.parts[0]
    return replace(offer, parts=(replace(part, data=b""),)), part


async def stream(*chunks):
    for chunk in chunks:
        yield memoryview(chunk)


async def test_a_file_that_does_not_come_along_is_granted_received_and_recorded(world, opened):
    assignment = (await opened("run"))["run"]["ada"]
    offer, part = large(world, "ada", assignment, b"large")
    await world.offers.offer("ada", offer)
    await world.nodes.until(lambda: world.nodes.got(msg.UploadGrant, "ada"))
    (grant,) = world.nodes.got(msg.UploadGrant, "ada")
    assert grant.offsets == ((part.artifact.digest, 0),)
    assert world.offers.digests() == {part.artifact.digest}  # what of it is here already is not dropped
    size = await world.offers.receive("ada", part.artifact.digest, 0, stream(part.data), sent=1 << 40)
    assert world.runs.of("run").progress.sent_again.of(1) == Resent(up=size)  # of what a node says no more than can be
    assert size == part.artifact.size_bytes
    assert len(world.nodes.got(msg.Receipt, "ada")) == 1
    assert world.runs.of("run").progress.bytes_received == size
    assert not world.offers.digests()


async def test_the_same_file_for_two_runs_is_sent_once_and_recorded_for_both(world, opened):
    rounds = await opened("one", "two")
    offers = {run: large(world, "ada", rounds[run]["ada"], b"the same") for run in rounds}
    for offer, _ in offers.values():
        await world.offers.offer("ada", offer)
    part = offers["one"][1]
    for _ in offers:
        await world.offers.receive("ada", part.artifact.digest, 0, stream(part.data))
    assert [verdicts(world, run) for run in ("one", "two")] == [{"ada": "received"}] * 2
    assert world.received == [0]


async def test_nothing_is_received_that_was_not_offered_or_was_given_up(world, opened):
    rounds = await opened("one", "two")
    with pytest.raises(NotFound):
        await world.offers.receive("ada", artifact_of([b"x"]).digest, 0, stream(b"x"))
    files = {}
    for run in ("one", "two"):
        offer, part = large(world, "ada", rounds[run]["ada"], run.encode())
        await world.offers.offer("ada", offer)
        files[run] = part
    world.offers.drop("ada", "one")
    with pytest.raises(NotFound):
        await world.offers.receive("ada", files["one"].artifact.digest, 0, stream(files["one"].data))
    await world.offers.receive("ada", files["two"].artifact.digest, 0, stream(files["two"].data))
    world.offers.drop("ada")
    assert verdicts(world, "two") == {"ada": "received"}


async def breaks_off(data):
    """A stream that ends before its sender has said that this was all."""
    yield memoryview(data)
    raise TransferError("the connection broke")


async def begin(world, assignment):
    """Ada's upload breaks off when all but its end has come; the file."""
    offer, part = large(world, "ada", assignment, b"large")
    await world.offers.offer("ada", offer)
    with pytest.raises(TransferError):
        await world.offers.receive("ada", part.artifact.digest, 0, breaks_off(part.data))
    return part.artifact.digest


async def test_what_came_of_an_update_is_kept_until_nobody_waits_for_it(world, opened):
    digest = await begin(world, (await opened("run"))["run"]["ada"])
    world.offers.drop("ada")  # its session has ended: it may come back and go on
    await world.offers.unfinished.tidy()
    assert world.files.unfinished() == {digest}
    run = world.runs.of("run")
    run.post(NodeAnswered("ada", 1, "declined", "no time", world.services.clock(), 1))
    await heard(world, "run", "ada")
    await world.offers.unfinished.tidy()
    assert world.files.unfinished() == set()
    assert list((world.files.root / "spool").iterdir()) == []


async def test_what_came_before_a_restart_is_kept_while_a_run_is_in_progress(world, opened):
    digest = await begin(world, (await opened("run"))["run"]["ada"])
    after = UnfinishedUploads(world.services, world.runs)
    await after.tidy()
    assert world.files.unfinished() == {digest}
    world.record.finish_run("run", "stopped", "", 2000.0)
    await after.tidy()
    assert world.files.unfinished() == set()


async def test_an_update_that_the_record_refuses_leaves_no_file(world, opened):
    assignment = (await opened("run"))["run"]["ada"]
    world.members.evicted.add("ada")
    offer = world.update_of("ada", assignment)
    await world.offers.offer("ada", offer)
    assert [refusal.code for refusal in world.nodes.got(msg.Refusal)] == ["late"]
    assert not world.files.has(offer.parts[0].artifact.digest)
    assert verdicts(world) == {}


async def test_an_update_whose_file_another_run_dropped_meanwhile_is_asked_for_again(world, opened):
    """It was here when the offer was checked, and is gone when the update is to be recorded."""
    assignment = (await opened("run"))["run"]["ada"]
    offer = world.update_of("ada", assignment)
    artifact, data = offer.parts[0].artifact, offer.parts[0].data
    world.files.put(artifact, data)
    missing = world.offers._missing

    def seen(of):
        parts = missing(of)
        world.files.release([artifact.digest])
        return parts

    world.offers._missing = seen
    await world.offers.offer("ada", replace(offer, parts=(replace(offer.parts[0], data=b""), *offer.parts[1:])))
    assert [refusal.code for refusal in world.nodes.got(msg.Refusal, "ada")] == ["not-ready"]
    world.offers._missing = missing
    await world.offers.offer("ada", offer)
    assert len(world.nodes.got(msg.Receipt, "ada")) == 1
    assert verdicts(world) == {"ada": "received"}


async def test_what_went_wrong_on_a_node_is_an_event_once(world, opened):
    assignment = (await opened("run"))["run"]["ada"]
    reason = "what it kept of the run (control) was gone"
    offer = world.update_of("ada", assignment, notice=reason)
    for _ in range(2):
        await world.offers.offer("ada", offer)
    await world.offers.offer("bob", world.update_of("bob", assignment))
    (event,) = [event for event in world.record.events(run="run") if event.kind == NODE_NOTICE]
    assert (event.node, event.detail) == ("ada", {"round": 1, "reason": reason})
