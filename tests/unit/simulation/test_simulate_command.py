from __future__ import annotations

import pytest
from click.testing import CliRunner

from covey.cli.framework.attacks import attacks_of
from covey.cli.main import covey
from covey.cli.views.simulation_bars import Lines
from covey.simulation.plan import SimulationProgress

SPEC = 'name = "x"\n[task]\nname = "digits"\n'


def invoke(tmp_path, *options, text=SPEC):
    path = tmp_path / "spec.toml"
    path.write_text(text)
    where = ["--data-dir", tmp_path / "record"]
    return CliRunner().invoke(covey, ["simulate", str(path), *map(str, where), *options])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--nodes", "0"), "0 is not in the range"),
        ((), "Missing option '--nodes'"),
        (("--nodes", "4", "--attack", "alie"), "write NAME=COUNT"),
        (("--nodes", "4", "--attack", "alie=few"), "COUNT must be a number"),
        (("--nodes", "4", "--attack", "alie=1", "--attack", "alie=2"), "each attack once"),
        (("--nodes", "4", "--attack-option", "alie.z=1"), "no --attack alie"),
        (("--nodes", "4", "--attack", "alie=1", "--attack-option", "z=1"), "write NAME.KEY=VALUE"),
        (("--nodes", "4", "--path", "images"), "write NAME=PATH"),
    ],
)
def test_wrong_usage_is_said_and_leaves_nothing(tmp_path, options, message):
    done = invoke(tmp_path, *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "record").exists()


@pytest.mark.parametrize(
    ("options", "text", "message"),
    [
        (("--nodes", "4"), SPEC + "colour = 1", "colour"),
        (("--nodes", "4", "--staleness", "6"), SPEC, "write normal:MEAN,SD"),
        (("--nodes", "4", "--staleness", "normal:6,2"), SPEC, 'only mode = "async"'),
        (("--nodes", "4", "--attack", "sorcery=1"), SPEC, "no attack named 'sorcery'"),
        (("--nodes", "4", "--attack", "alie=5"), SPEC, "only 4 nodes"),
    ],
)
def test_what_cannot_work_is_said_and_leaves_nothing(tmp_path, options, text, message):
    done = invoke(tmp_path, *options, text=text)
    assert done.exit_code == 1
    assert message in done.stderr
    assert not (tmp_path / "record").exists()


def test_options_go_to_theirattacks_of():
    alie, flip = attacks_of(("alie=2", "sign-flip=1"), ("alie.z=1.5", "alie.name=a=b"))
    assert (alie.name, alie.count, alie.options) == ("alie", 2, {"z": 1.5, "name": "a=b"})
    assert (flip.name, flip.count, flip.options) == ("sign-flip", 1, {})


def test_without_a_terminal_a_line_says_what_has_moved(capsys):
    with Lines() as lines:
        lines.update(SimulationProgress("rounds", 0, 5, 1, 4, {}))
        lines.update(SimulationProgress("rounds", 2, 5, 0, 4, {"loss": 0.25, "accuracy": 0.5}))
        lines.update(SimulationProgress("rounds", 2, 5, 3, 4, {}))
    assert capsys.readouterr().err == "2 of 5 rounds: accuracy 0.5000, loss 0.2500\n"


def test_all_that_a_specification_gets_wrong_is_said_at_once(tmp_path):
    """Sections that rule values out, plug-ins that are not installed, and keys that nothing reads: as at submission."""
    text = (
        f'{SPEC}options = {{ colour = "red" }}\n[rounds]\ndeadline_s = 60\nhard_deadline_s = 30\n'
        '[aggregation]\nname = "medium"\n[training]\nlocal_epochs = 1\nlocal_steps = 2\n'
    )
    done = invoke(tmp_path, "--nodes", "4", text=text)
    assert done.exit_code == 1
    for part in ("rounds.hard_deadline_s", "'medium'", "training.local_steps", "colour"):
        assert part in done.stderr
    assert not (tmp_path / "record").exists()
