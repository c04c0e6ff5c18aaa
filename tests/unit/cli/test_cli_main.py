import io
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from covey import __version__
from covey.cli.commands.node import token_text
from covey.cli.framework.command import INTERRUPTED, Command, Group, RootGroup
from covey.cli.main import SUBCOMMANDS, covey
from covey.errors import NotFound

HEAVY = ("torch", "grpc", "sqlalchemy", "pydantic", "rich", "numpy")


def every_command(command, path=("covey",)):
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from every_command(command.get_command(context, name), (*path, name))


COMMANDS = dict(every_command(covey))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_says_what_it_does_and_shows_an_example(path):
    done = CliRunner().invoke(covey, [*path[1:], "--help"])
    assert done.exit_code == 0
    assert "Examples:" in done.stdout
    example = done.stdout.rpartition("Examples:")[2]
    assert " ".join(path) in example
    assert COMMANDS[path].help


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_commands_with_json_document_its_fields(path):
    command = COMMANDS[path]
    takes_json = any(parameter.name == "as_json" for parameter in command.params)
    assert bool(command.json_fields) == takes_json
    if takes_json:
        assert "JSON fields:" in CliRunner().invoke(covey, [*path[1:], "--help"]).stdout


def test_commands_of_the_design_are_there():
    found = {" ".join(path[1:]) for path in COMMANDS}
    wanted = {
        "demo",
        "coordinator start",
        "coordinator pause",
        "coordinator resume",
        "coordinator drain",
        "coordinator status",
        "coordinator backup",
        "coordinator restore",
        "coordinator token",
        "coordinator admin issue",
        "node join",
        "node check",
        "node start",
        "node leave",
        "node list",
        "node show",
        "node evict",
        "run submit",
        "run list",
        "run show",
        "run watch",
        "run stop",
        "run export",
        "run audit",
        "round list",
        "round show",
        "store migrate",
        "store copy",
        "store check",
        "plugins",
        "plugins show",
    }
    assert wanted <= found


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["coordinator", "start", "--help"], ["--version"]]
)
def test_help_imports_nothing_heavy(arguments):
    program = (
        "import sys\n"
        "from covey.cli.main import covey\n"
        f"try: covey({arguments!r})\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("HEAVY []\n")


def test_root_imports_only_the_asked_command():
    program = (
        "import sys\n"
        "from covey.cli.main import covey\n"
        "try: covey(['store', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith('covey.cli.')])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1]
    assert "covey.cli.commands.store" in loaded
    assert "covey.cli.commands.run" not in loaded
    assert "covey.cli.commands.demo" not in loaded


@pytest.mark.parametrize("count", ["0", "17"])
def test_no_more_runs_at_once_than_nodes_keep_state_of(count, tmp_path):
    done = CliRunner().invoke(covey, ["coordinator", "start", "--data-dir", str(tmp_path), "--max-runs", count])
    assert done.exit_code == 2
    assert "1<=x<=16" in done.stderr


def test_version():
    done = CliRunner().invoke(covey, ["--version"])
    assert done.stdout.strip() == f"covey, version {__version__}"


@click.command(cls=Command)
def not_found():
    raise NotFound("no run named 'x'; list them with: covey run list")


@click.command(cls=Command)
def interrupted():
    raise KeyboardInterrupt


@click.group(cls=Group)
def nested():
    """Hold a failing command."""


nested.add_command(not_found, "fails")
FAILING = RootGroup("covey", lazy={name: f"{__name__}:{name}" for name in ("not_found", "interrupted", "nested")})


@pytest.mark.parametrize("arguments", [["not_found"], ["nested", "fails"]])
def test_an_error_of_covey_is_one_line_and_exit_code_1(arguments):
    done = CliRunner().invoke(FAILING, arguments)
    assert done.exit_code == 1
    assert done.stderr == "error: no run named 'x'; list them with: covey run list\n"
    assert done.stdout == ""


def test_ctrl_c_is_exit_code_130():
    assert CliRunner().invoke(FAILING, ["interrupted"]).exit_code == INTERRUPTED == 130


@pytest.mark.parametrize(
    "arguments",
    [["no-such-command"], ["run", "show"], ["run", "show", "x", "--no-such-option"], ["round", "show", "x", "0"]],
)
def test_wrong_usage_is_exit_code_2(arguments):
    done = CliRunner().invoke(covey, arguments, env={"COVEY_HOME": None})
    assert done.exit_code == 2
    assert "Usage:" in done.stderr


def test_subcommands_are_listed_in_their_order():
    done = CliRunner().invoke(covey, ["--help"])
    places = [done.stdout.index(f"\n  {name} ") for name in SUBCOMMANDS]
    assert places == sorted(places)


def test_a_token_is_taken_from_a_file_or_standard_input(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("covey1.in-a-file\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"covey1.by-hand\r\n")))
    assert token_text("covey1.itself") == "covey1.itself"
    assert token_text(str(tmp_path / "token")) == "covey1.in-a-file\n"
    assert token_text("-") == "covey1.by-hand\n"
    assert token_text("absent") == "absent"
