import pytest
from click.testing import CliRunner

from covey.cli.main import covey

RIGHT = """
name = "digits"
[task]
name = "digits"
"""


def submit(tmp_path, text, *options):
    path = tmp_path / "spec.toml"
    path.write_text(text)
    return CliRunner().invoke(covey, ["run", "submit", str(path), "--data-dir", str(tmp_path / "none"), *options])


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ('[training]\nprecision = "half"', ["training.precision", "half", "float32", "bf16"]),
        ("[training]\nlearning_rate = -1", ["training.learning_rate", "-1", "greater than 0"]),
        ("[rounds]\ncounts = 3", ["rounds.counts", "unknown key", "count", "quorum"]),
        ("[rounds]\ncount = 0", ["rounds.count", "0", "greater than or equal to 1"]),
        ("this is not toml", ["not valid TOML"]),
    ],
)
def test_a_wrong_specification_names_key_value_and_choices(tmp_path, extra, named):
    done = submit(tmp_path, RIGHT + extra)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    for text in named:
        assert text in done.stderr


def test_a_missing_key_is_named(tmp_path):
    done = submit(tmp_path, 'name = "digits"')
    assert done.exit_code == 1
    assert "task: this key is required" in done.stderr


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_bytes(b"\xff\xfe\x00")
    done = CliRunner().invoke(covey, ["run", "submit", str(path), "--data-dir", str(tmp_path)])
    assert done.exit_code == 1
    assert "is not a text file" in done.stderr


def test_a_missing_file_is_wrong_usage(tmp_path):
    done = CliRunner().invoke(covey, ["run", "submit", str(tmp_path / "no.toml"), "--data-dir", str(tmp_path)])
    assert done.exit_code == 2


def test_without_a_coordinator_it_says_how_to_start_one(tmp_path):
    done = submit(tmp_path, RIGHT)
    assert done.exit_code == 1
    assert f"no coordinator is running on {tmp_path / 'none'}" in done.stderr
    assert f"covey coordinator start --data-dir {tmp_path / 'none'}" in done.stderr
