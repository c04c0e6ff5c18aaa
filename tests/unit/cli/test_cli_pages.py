"""Lists that may be long: the newest first, and how the rest is seen."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from covey.cli.framework import pages
from covey.cli.framework.command import print_json, print_json_list
from covey.cli.main import covey
from covey.testing.store import records as make


@pytest.fixture
def call(recorder, monkeypatch):
    monkeypatch.setattr("covey.cli.commands.run.DEFAULT_PAGE", 3)
    monkeypatch.setattr("covey.cli.commands.round.DEFAULT_PAGE", 3)
    monkeypatch.setattr("covey.cli.commands.node.DEFAULT_PAGE", 3)

    def invoke(*arguments, code=0):
        done = CliRunner().invoke(covey, [*map(str, arguments), "--data-dir", str(recorder.data_dir)])
        assert done.exit_code == code, done.output
        return done

    return invoke


def runs(done):
    return [run["run"] for run in json.loads(done.stdout)]


def rounds(done):
    return [item["round"] for item in json.loads(done.stdout)]


@pytest.fixture
def five_runs(recorder):
    for number in range(5):
        recorder.run(f"run-{number}")


@pytest.mark.usefixtures("five_runs")
def test_the_newest_runs_are_shown_and_how_to_go_on(call):
    done = call("run", "list", "--json")
    assert runs(done) == ["run-4", "run-3", "run-2"]
    assert done.stderr == "the newest 3 runs are shown; go on with --before run-2, or see all of them with --all\n"
    done = call("run", "list", "--json", "--before", "run-2")
    assert (runs(done), done.stderr) == (["run-1", "run-0"], "")
    done = call("run", "list", "--json", "--all")
    assert (len(runs(done)), done.stderr) == (5, "")
    assert runs(call("run", "list", "--json", "--limit", 1)) == ["run-4"]
    assert runs(call("run", "list", "--json", "--limit", 5)) == ["run-4", "run-3", "run-2", "run-1", "run-0"]
    shown = call("run", "list")
    assert "run-2" in shown.stdout
    assert "run-1" not in shown.stdout
    assert "--all" in shown.stderr


@pytest.mark.usefixtures("five_runs")
def test_before_and_all_go_together(call):
    assert runs(call("run", "list", "--json", "--all", "--before", "run-3")) == ["run-2", "run-1", "run-0"]


def test_the_newest_rounds_are_shown_in_order_and_how_to_see_the_others(call, recorder):
    recorder.run("run", rounds=8)
    done = call("round", "list", "run", "--json")
    assert rounds(done) == [6, 7, 8]
    assert done.stderr == (
        "the newest 3 rounds are shown; go on with --after 0 from the first one, or see all of them with --all\n"
    )
    done = call("round", "list", "run", "--json", "--after", 0)
    assert rounds(done) == [1, 2, 3]
    assert "--after 3," in done.stderr
    done = call("round", "list", "run", "--json", "--after", 5)
    assert (rounds(done), done.stderr) == ([6, 7, 8], "")
    done = call("round", "list", "run", "--json", "--all")
    assert (rounds(done), done.stderr) == (list(range(1, 9)), "")
    assert rounds(call("round", "list", "run", "--json", "--limit", 8)) == list(range(1, 9))
    assert rounds(call("round", "list", "run", "--json", "--all", "--after", 6)) == [7, 8]


def test_a_limit_and_all_contradict_each_other(call):
    assert "not both" in call("run", "list", "--all", "--limit", 5, code=2).stderr
    assert "not both" in call("round", "list", "run", "--all", "--limit", 5, code=2).stderr


def test_a_hundred_are_shown_by_default():
    assert pages.DEFAULT_PAGE == 100
    for command in ("run", "round"):
        assert "[default: 100]" in CliRunner().invoke(covey, [command, "list", "--help"]).stdout


def test_nodes_come_in_pages_by_name(call, recorder):
    recorder.enrol(*(f"node-{name}" for name in "eadbc"))
    everybody = [f"node-{name}" for name in "abcde"]

    def nodes(done):
        return [item["node"] for item in json.loads(done.stdout) if item["node"] in everybody]

    known = [item["node"] for item in json.loads(call("node", "list", "--json", "--all").stdout)]
    assert [node for node in known if node in everybody] == everybody
    done = call("node", "list", "--json", "--after", "node-a")
    assert nodes(done) == everybody[1:4]
    assert done.stderr == "the first 3 nodes are shown; go on with --after node-d, or see all of them with --all\n"
    assert nodes(call("node", "list", "--json", "--after", "node-d")) == ["node-e"]
    assert len(json.loads(call("node", "list", "--json", "--limit", 1).stdout)) == 1


def test_what_nodes_contributed_to_a_run_comes_in_pages_in_the_rosters_order(call, recorder):
    roster = tuple(f"node-{name}" for name in "eadbc")
    recorder.enrol(*roster)
    recorder.run("run", rounds=1, nodes=roster)
    recorder.open("run", 2, roster)
    for node in roster:
        recorder.store.record_outcome(make.outcome_record("run", 2, node, "declined", "no data"))

    def shown(*options):
        done = call("run", "show", "run", "--json", *options)
        said = json.loads(done.stdout)
        assert (said["roster"], said["roster_size"]) == (list(roster), 5)
        return [item["node"] for item in said["contributions"]], done.stderr

    further = "3 of 5 nodes are shown; go on with --after {}, or see all of them with --all\n"
    assert shown() == (list(roster[:3]), further.format("node-d"))
    assert shown("--after", "node-d") == (list(roster[3:]), "")
    assert shown("--all") == (list(roster), "")
    assert shown("--limit", 5)[0] == list(roster)
    text = call("run", "show", "run").stdout
    assert "node-b" not in text.partition("warning")[0].partition("ASKED")[2]
    assert [line for line in text.splitlines() if line.startswith("warning: node-c contributed to 1 of the 2 rounds")]


def test_a_long_list_is_written_piece_by_piece_as_a_short_one_is(capsys):
    for values in ([], [1], [{"a": [1, {"b": "x\ny"}], "c": {}}, {"a": [], "c": "\u2028"}]):
        print_json(values)
        whole = capsys.readouterr().out
        print_json_list(iter(values))
        assert capsys.readouterr().out == whole


def test_a_long_table_of_nodes_is_several(call, recorder, monkeypatch):
    monkeypatch.setattr("covey.cli.commands.node.PAGE", 2)
    recorder.enrol("node-a", "node-b", "node-c")
    text = call("node", "list", "--all").stdout
    assert text.count("STATE") == 3
    assert all(name in text for name in ("ada", "bob", "node-a", "node-b", "node-c"))
