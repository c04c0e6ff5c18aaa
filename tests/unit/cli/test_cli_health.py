import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from covey.cli.commands.health import COORDINATOR_NAME
from covey.cli.main import covey
from covey.wire.identities import authority


def call(*arguments):
    done = CliRunner().invoke(covey, ["health", *map(str, arguments)], env={"COVEY_HOME": None})
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_where_nothing_runs(tmp_path):
    assert "no daemon is running on" in call("--data-dir", tmp_path)
    assert "no daemon is running on" in call("--data-dir", tmp_path / "missing")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"listen": "127.0.0.1:1"'])
def test_a_broken_announcement(tmp_path, text):
    (tmp_path / "node.json").write_text(text)
    assert "node.json cannot be read" in call("--data-dir", tmp_path)


def test_a_broken_identity(tmp_path):
    (tmp_path / "node.json").write_text(json.dumps({"listen": "127.0.0.1:1", "pid": 1}))
    assert "identity cannot be read" in call("--data-dir", tmp_path)
    (tmp_path / "identity").mkdir()
    (tmp_path / "identity" / "federation.json").write_text(json.dumps({"name": "n0"}))
    assert "identity cannot be read" in call("--data-dir", tmp_path)


def test_the_coordinators_name_is_that_of_its_certificates():
    assert COORDINATOR_NAME == authority.COORDINATOR_NAME


def test_it_imports_little(tmp_path):
    for name in ("tls.key", "tls.crt", "authority.crt"):
        (tmp_path / "admin").mkdir(exist_ok=True)
        (tmp_path / "admin" / name).write_text("")
    (tmp_path / "coordinator.json").write_text(json.dumps({"listen": "0.0.0.0:1", "pid": 1}))
    program = (
        "import sys\n"
        "import covey.cli.commands.health as health\n"
        "health._expired = lambda daemon: ''\n"
        f"try: health.health(['--data-dir', {str(tmp_path)!r}, '--timeout', '1s', '--json'])\n"
        "except SystemExit as end: print(end.code)\n"
        "heavy = ('torch', 'sqlalchemy', 'pydantic', 'rich', 'numpy', 'cryptography', 'structlog', 'stamina')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("1\n[]\n")
    assert '"address": "127.0.0.1:1"' in done.stdout
