"""Which lines about a run leave a node: by its operator's word, bounded, and not those of another run."""

import pytest

from covey import messages as msg
from covey.node.site_log.gathering import AT_ONCE, MAX_LINE, MESSAGE_LINES, RECENT_LINES, WAITING_LINES, Gathering

TRACEBACK = "Traceback (most recent call last):\n  boom\nValueError: no column"


def gathering(sharing):
    return Gathering(sharing, lambda text: text.replace("secret", "<path>"), 0.0)


def said(messages, run="a"):
    return [(line.kind, line.text) for message in messages if message.run == run for line in message.lines]


def fail(node, run="a"):
    node.failed(run, 3, "training failed: task-failed: ValueError: no column", TRACEBACK, 9.0)


def test_a_site_that_shares_nothing_says_that_once_a_run():
    node = gathering("none")
    node.began("a", 3)
    node.printed(b"hello\n", 1.0)
    node.logged("a", 3, "training", 1.0)
    fail(node)
    assert node.due(1.0) == [msg.SiteLog("a", "none")]
    node.began("a", 4)
    assert node.due(2.0) == []
    node.connected()
    assert node.due(3.0) == [msg.SiteLog("a", "none")]


def test_a_failure_comes_with_its_traceback_and_what_was_printed_before_even_if_that_is_read_later():
    node = gathering("failures")
    node.began("a", 2)
    node.printed(b"of the round before\n", 1.0)
    node.began("a", 3)
    node.printed(b"epoch 1\nep", 1.0)
    fail(node)
    node.failed("a", 4, "training failed", "", 9.0)
    node.printed(b"och 2 of secret\n\x1b[31m" + TRACEBACK.encode() + b"\n", 1.0)  # the worker logs it, too
    first, message = node.due(1.0)
    assert (first.sharing, message.sharing) == ("failures", "failures")
    assert {line.round for line in message.lines[:-1]} == {3}
    assert said([message]) == [
        ("output", "epoch 1"),
        ("output", "epoch 2 of <path>"),
        ("output", "\\x1b[31mTraceback (most recent call last):"),
        ("failure", "training failed: task-failed: ValueError: no column"),
        ("traceback", "Traceback (most recent call last):"),
        ("traceback", "  boom"),
        ("traceback", "ValueError: no column"),
        ("failure", "training failed"),
    ]
    assert node.due(2.0) == []


def test_another_run_s_lines_are_not_among_a_run_s_and_each_worker_has_its_own():
    node = gathering("failures")
    node.began("b", 1)
    node.printed(b"of b\n", 1.0)
    node.began("a", 3)
    node.began("g", 0, "gossip")
    node.printed(b"of g\n", 1.0, "gossip")
    fail(node)
    assert not {"of b", "of g"} & {text for _, text in said(node.due(1.0))}


def test_all_is_shared_as_it_comes():
    node = gathering("all")
    node.began("a", 3)
    node.printed(b"epoch 1\n", 1.0)
    node.logged("a", 3, "training", 1.0)
    assert said(node.due(1.0)) == [("output", "epoch 1"), ("node", "training")]


@pytest.mark.parametrize("sharing", ["failures", "all"])
def test_a_flood_costs_bounded_memory_and_a_bounded_rate_and_is_counted(sharing):
    node = gathering(sharing)
    node.began("a", 3)
    for _ in range(20):
        node.printed(b"x" * 5000 + b"\n" + b"line\n" * 1000, 1.0)
        node.printed(b"without an end" * 1000, 1.0)
    fail(node)
    messages = node.due(0.0)
    lines = [line for message in messages for line in message.lines]
    assert max(len(message.lines) for message in messages) <= MESSAGE_LINES
    assert max(len(line.text) for line in lines) <= MAX_LINE
    assert len(lines) <= (RECENT_LINES + 10 if sharing == "failures" else AT_ONCE + 1)
    if sharing == "all":
        assert len(lines) == WAITING_LINES + 1
        assert "lines were left out" in lines[-1].text
        node.printed(b"next\n" * 50, 2.0)
        assert len(said(node.due(1.0))) == 10


def test_of_a_long_traceback_the_middle_is_left_out():
    node = gathering("failures")
    node.began("a", 3)
    node.failed("a", 3, "failed", "\n".join(map(str, range(5000))), 1.0)
    texts = [text for kind, text in said(node.due(1.0)) if kind == "traceback"]
    assert (texts[0], texts[-1], texts[50]) == ("0", "4999", "[4900 lines are left out here]")
