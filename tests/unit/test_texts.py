"""Files from Windows, and where in the user's code something happened."""

from __future__ import annotations

import codecs
import faulthandler
import re
from pathlib import Path

import pytest

from covey.cli.commands.node import token_text
from covey.errors import IdentityError, SpecError
from covey.node.operator.config import read_settings
from covey.spec import parse_toml
from covey.texts import decoded, printable, read_pem
from covey.user_code.place import error_text, place_in
from covey.wire.identities.tokens import JoinToken

TEXT = '# größe\nname = "mine"\n[task]\nname = "digits"\n'


@pytest.mark.parametrize(
    "raw",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
    ],
)
def test_marks_and_line_ends_of_windows_are_read(raw: bytes) -> None:
    assert decoded(raw) == TEXT
    assert parse_toml(decoded(raw)).name == "mine"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("name = “mine”", "typographic quotes are none in TOML"),
        ('path = "C:\\data\\x.csv"', "write a Windows path in '...'"),
        ("name = ", "Invalid value"),
    ],
)
def test_what_text_programs_and_windows_write_is_named(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(SpecError, match=rf"not valid TOML: .*at line 2.*{re.escape(said)}|{re.escape(said)}.*line 2"):
        parse_toml(f"# a run\n{line}\n")
    (tmp_path / "node.toml").write_text(f"# a node\n{line}\n")
    with pytest.raises(SpecError, match=re.escape(said)):
        read_settings(tmp_path / "node.toml")


def test_settings_in_another_encoding_are_named(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_bytes("# für\n".encode("latin-1"))
    with pytest.raises(SpecError, match=r"is not a text file in UTF-8 .*save it as UTF-8"):
        read_settings(tmp_path / "node.toml")


def test_a_token_in_a_file_of_windows_is_read(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "token").write_bytes("covey1.abc\r\n".encode(encoding))
        assert token_text(str(tmp_path / "token")) == "covey1.abc\n"
    (tmp_path / "token").write_bytes(b"\xff\x00\x80")
    assert "covey1" not in token_text(str(tmp_path / "token"))


def test_a_mark_in_text_that_is_passed_on_is_skipped() -> None:
    assert parse_toml("\ufeff" + TEXT).name == "mine"


def test_settings_and_certificates_with_a_mark(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_bytes(codecs.BOM_UTF8 + b"[policy]\r\ntasks = []\r\n")
    assert read_settings(tmp_path / "node.toml").policy.tasks == ()
    (tmp_path / "a.crt").write_bytes(codecs.BOM_UTF8 + b"-----BEGIN CERTIFICATE-----\r\n")
    assert read_pem(tmp_path / "a.crt") == b"-----BEGIN CERTIFICATE-----\n"
    (tmp_path / "odd").write_bytes(b"\xff\x00\x80")
    assert read_pem(tmp_path / "odd") == b"\xff\x00\x80"


AROUND = ['"{}"', "\ufeff{}\r\n", "“{}”", "<{}>", "`{}`", "'{}'", "$ {}", "TOKEN={}", 'export TOKEN="{}"', "> {}"]


@pytest.mark.parametrize("around", AROUND)
def test_what_mail_puts_around_a_token_is_no_part_of_it(around: str) -> None:
    with pytest.raises(IdentityError, match="damaged"):  # so it was seen to be a token
        JoinToken.decode(around.format("covey1.abc"))


def fails() -> None:
    raise ValueError("no")


def test_an_error_has_a_place() -> None:
    with pytest.raises(ValueError, match="no") as caught:
        fails()
    line = fails.__code__.co_firstlineno + 1
    assert error_text(caught.value).endswith(f"test_texts.py:{line}, in fails)")
    with pytest.raises(ValueError, match="invalid literal") as elsewhere:
        int("x")
    assert error_text(elsewhere.value).startswith("ValueError: invalid literal")
    assert error_text(elsewhere.value).endswith("in test_an_error_has_a_place)")
    with pytest.raises(AssertionError) as silent:
        assert TEXT is None
    silent.value.args = ()  # as Python raises it, without pytest
    assert error_text(silent.value).startswith("AssertionError at `assert TEXT is None` (")


def test_a_dump_of_stacks_has_a_place(tmp_path: Path) -> None:
    with (tmp_path / "stacks").open("w+") as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        assert place_in(file.read()).endswith("in test_a_dump_of_stacks_has_a_place")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("accuracy 0.9", "accuracy 0.9"),
        ("two\n\tlines, ä, 漢", "two\n\tlines, ä, 漢"),
        ("\x1b]0;owned\x07\x1b[2J", "\\x1b]0;owned\\x07\\x1b[2J"),
        ("\r\x9b31m\x7f", "\\r\\x9b31m\\x7f"),
        ("gnp.\u202eexe", "gnp.\\u202eexe"),
    ],
)
def test_text_of_others_does_not_steer_the_terminal(text, shown):
    assert printable(text) == shown
