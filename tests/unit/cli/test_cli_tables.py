import pytest

from covey.cli.views import tables
from covey.client.values import Round, RoundDetail, Run, Update


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
    )
    tables.show(*tables.round_details(detail))
    out = capsys.readouterr().out
    for part in ("LOSS", "0.2500", "accepted", "rejected", "non-finite values in [model]", "abababababab"):
        assert part in out


def test_nothing_is_cut_in_a_pipe(capsys):
    reason = "waiting for 4 nodes; " * 5
    tables.show(tables.run_table([Run("3f9a01c2d4e5", "digits", "rounds", "running", reason)]))
    assert reason.strip() in capsys.readouterr().out
