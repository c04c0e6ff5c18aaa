import pytest

from covey.cli.commands.figures.report_tables import report_tables
from covey.cli.views import contributions, tables
from covey.client.values import Contribution, Event, Node, Round, RoundDetail, Run, Update


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_500_000, "2.5 MB"), (3 * 10**12, "3.0 TB")]
)
def test_amounts(count, text):
    assert tables.amount(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.034, "0.03 s"), (61, "61.00 s"), (150, "2 min 30 s"), (9000, "2 h 30 min")]
)
def test_spans(seconds, text):
    assert tables.span(seconds) == text


def test_metrics_get_columns_main_ones_first():
    rounds = [Round(1, "committed", metrics={"loss": 1.0, "f1": 0.5, "accuracy": 0.2}), Round(2, "collecting")]
    assert tables.metric_names(rounds) == ["accuracy", "loss"]
    assert tables.metric_names([Round(1, "committed", metrics={"f1": 1, "auc": 1, "x": 1})]) == ["auc", "f1"]
    assert tables.metric_names([]) == []


def test_a_round_is_shown_with_every_update(capsys):
    detail = RoundDetail(
        Round(3, "committed", accepted=1, rejected=1, seconds=0.5, metrics={"loss": 0.25}),
        (
            Update("a", "accepted", weight=100, share=1.0, bytes=1000, digest="ab" * 32),
            Update("b", "rejected", reason="non-finite values in [model]"),
        ),
        bytes_resent_down=12_700_000,
    )
    tables.show(*tables.round_details(detail))
    out = capsys.readouterr().out
    for part in ("LOSS", "0.2500", "accepted", "rejected", "non-finite values in [model]", "abababababab", "of models"):
        assert part in out


def test_a_run_without_a_parent_continues_nothing():
    alone, child = (Run("3f9a", "digits", "rounds", "running", spec={"model": {"parent": old}}) for old in ("", "a@3"))
    assert ["continues" in tables.run_details(run).plain for run in (alone, child)] == [False, True]


def test_nothing_is_cut_in_a_pipe(capsys):
    reason = "waiting for 4 nodes; " * 5
    tables.show(tables.run_table([Run("3f9a01c2d4e5", "digits", "rounds", "running", reason)]))
    assert reason.strip() in capsys.readouterr().out


LONG = "task-failed: ValueError: Expected more than 1 value per channel when training, got input size [1, 64]; " * 2
SHORT_ROUND = Round(
    10,
    "committed",
    attempt=2,
    accepted=10,
    declined=1,
    lost=1,
    late=1,
    bytes_received=123_400_000,
    bytes_sent=123_400_000,
    seconds=12.5,
    metrics={"accuracy": 0.5, "loss": 0.5, "nodes/accuracy": 0.5, "nodes/loss": 0.5},
    last_reason=f"hospital-a declined: {LONG}",
)
QUANTILES = dict.fromkeys(("0.25", "0.5", "0.75"), 0.305664)
NUMBERS = {"count": 1437, "missing": 0, "least": 0.180664, "largest": 0.422852, "mean": 0.305396, "std": 0.0338935}
DATA = {
    "task": "digits",
    "examples": 1437,
    "columns": [{"column": "pixel-mean", "kind": "number", **NUMBERS, "quantiles": QUANTILES}],
    "labels": None,
}
TABLES = {
    "runs": lambda: tables.run_table([Run("3f9a01c2d4e5", "digits-of-all-sites", "rounds", "interrupted", LONG, 100)]),
    "rounds": lambda: tables.round_table([SHORT_ROUND]),
    "round": lambda: tables.round_details(
        RoundDetail(SHORT_ROUND, (Update("hospital-a", "declined", LONG, received_at=1.8e9, phase=2),))
    )[:2],
    "nodes": lambda: tables.node_table(
        [Node("hospital-north", "connected", last_seen_at=1.8e9, accepted=10, declined=2, late=3, last_reason=LONG)]
    ),
    "contributions": lambda: contributions.contribution_table([Contribution("hospital-north", 999, 1, 2, 3, 4, 5)]),
    "data": lambda: report_tables(DATA),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("columns", [None, "80", "60"])
def test_a_table_fits_the_columns_and_long_texts_stand_below_it(capsys, monkeypatch, name, columns):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    tables.show(TABLES[name]())
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= int(columns or 80) for line in lines if LONG.strip() not in line and ": " not in line)
    if name == "data":
        assert any(line.startswith("pixel-mean  number  1,437") for line in lines)
    elif name != "contributions":
        assert any(LONG.strip() in line for line in lines)


def test_a_node_that_contributed_to_less_than_it_was_asked_for_is_warned_of():
    run = Run("3f9a", "digits", "rounds", "completed")
    short = Contribution("n0", 3, 1, declined=2, last_round=3, last_verdict="declined", last_reason="task-failed: no")
    assert tables.shortfalls(run, [short, Contribution("n1", 3, 3), Contribution("n2")]) == [
        "warning: n0 contributed to 1 of the 3 rounds that it was asked for (2 declined); "
        "the last, 3: declined: task-failed: no"
    ]
    many = [
        Contribution(f"n{index}", 1, 0, lost=1, last_round=1, last_verdict="lost")
        for index in range(contributions.MOST_WARNINGS + 10)
    ]
    assert len(tables.shortfalls(run, many)) == contributions.MOST_WARNINGS + 1
    assert "10 more nodes" in tables.shortfalls(run, many)[-1]


def test_times_carry_their_zone():
    assert tables.when(1.8e9)[-6] in "+-"
    assert tables.when(None) == ""


def test_what_went_wrong_though_the_run_went_on_is_a_warning():
    lost = Event(9.0, "update-lost", "r", "n1", {"round": 3, "reason": "its files were damaged"})
    happened = contributions.notices([lost, Event(8.0, "run-started", "r"), Event(7.0, "node-notice", "r", "n2", {})])
    assert [(item["kind"], item["node"], item["round"]) for item in happened] == [
        ("update-lost", "n1", 3),
        ("node-notice", "n2", 0),
    ]
    assert contributions.notice_lines(happened) == [
        "warning: the update of n1, round 3, was lost on the coordinator: its files were damaged",
        "warning: n2, round 0: ",
    ]
    many = happened * contributions.MOST_WARNINGS
    assert len(contributions.notice_lines(many)) == contributions.MOST_WARNINGS + 1
