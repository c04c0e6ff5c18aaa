import json

from click.testing import CliRunner

from covey.cli.commands.plugins import PLUGIN_FIELDS, describe
from covey.cli.main import covey


def invoke(*arguments):
    return CliRunner().invoke(covey, ["plugins", *arguments])


def test_lists_every_kind_without_importing_any():
    found = json.loads(invoke("--json").stdout)
    assert all(tuple(entry) == PLUGIN_FIELDS for entry in found)
    names = {(entry["kind"], entry["name"]) for entry in found}
    assert {
        ("task", "digits"),
        ("task", "synthetic"),
        ("aggregator", "mean"),
        ("server-optimizer", "adam"),
        ("codec", "none"),
    } <= names


def test_table_has_a_line_for_each():
    found = json.loads(invoke("--json").stdout)
    text = invoke().stdout
    for entry in found:
        assert any(entry["name"] in line and entry["target"] in line for line in text.splitlines())


def test_shows_the_options_of_one():
    entry = json.loads(invoke("show", "server-optimizer", "adam", "--json").stdout)
    assert entry["error"] == ""
    assert entry["summary"]
    assert "learning_rate" in entry["options"]["properties"]
    text = invoke("show", "server-optimizer", "adam").stdout
    assert "learning_rate" in text
    assert "number" in text


def test_an_unknown_name_fails_and_lists_the_known_ones():
    done = invoke("show", "aggregator", "mode")
    assert done.exit_code == 1
    assert "'mode'" in done.stderr
    assert "mean" in done.stderr


def test_an_unknown_kind_is_wrong_usage():
    done = invoke("show", "aggregators", "mean")
    assert done.exit_code == 2
    assert "server-optimizer" in done.stderr


def test_one_that_cannot_be_loaded_does_not_hide_the_others():
    first, second = describe([("codec", "no-such-codec"), ("codec", "none")])
    assert "no-such-codec" in first["error"]
    assert (second["error"], second["name"]) == ("", "none")
