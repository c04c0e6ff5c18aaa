"""Options that several commands share, and their types."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from covey.client.target import Target

F = TypeVar("F", bound=Callable[..., Any])
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
BYTES |= {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class Duration(click.ParamType[float]):
    """A time span as `90s`, `15m`, `1h` or `2d`; the value is in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a time span."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", str(value))
        if match is None or float(match[1]) <= 0:
            self.fail(f"{value!r} is not a time span; write for example 90s, 15m, 1h or 2d", param, ctx)
        return float(match[1]) * SECONDS[match[2]]


class Size(click.ParamType[int]):
    """An amount of disk or memory as `500MB` or `16GiB`; the value is in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read an amount."""
        match = re.fullmatch(r"(\d+)\s*(|[KMGT]I?B)", str(value).upper())
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is not an amount of bytes; write for example 500MB or 16GiB", param, ctx)
        return int(match[1]) * BYTES[match[2]]


class Address(click.ParamType[str]):
    """A host and a port, as `HOST:PORT`."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check an address."""
        text = str(value)
        host, _, port = text.rpartition(":")
        if "://" in text:
            self.fail(f"{text!r} is a URL; write HOST:PORT only, as train.example.org:7400", param, ctx)
        if not host or not port.isdecimal() or int(port) > 65535 or any(char.isspace() for char in host):
            self.fail(f"{text!r} is not HOST:PORT; write for example 127.0.0.1:7400", param, ctx)
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            self.fail(f"{text!r}: an IPv6 address stands in brackets: [{host}]:{port}", param, ctx)
        return text


def named_paths(texts: Sequence[str], option: str = "--path") -> dict[str, str]:
    """What `--path NAME=PATH`, or another option, says, given any number of times."""
    pairs = [text.partition("=") for text in texts]
    if wrong := [text for text, (name, _, path) in zip(texts, pairs, strict=True) if not (name and path)]:
        raise click.UsageError(f"{option} {wrong[0]!r}: write NAME=PATH")
    return {name: path for name, _, path in pairs}


def option_of(text: str) -> tuple[str, Any]:
    """What `--option KEY=VALUE` says: key and value, which is JSON, or else a text. Raises UsageError."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise click.UsageError(f"--option {text!r}: write KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def target_of(data_dir: Path | None, server: str | None, identity: Path | None) -> Target:
    """Which coordinator the options mean; checks that they go together. An address goes before a data directory."""
    if (server is None) != (identity is None):
        raise click.UsageError("--server and --identity go together: where it is, and who you are")
    if server is not None:
        return Target(None, server, identity)
    if data_dir is None:
        raise click.UsageError(
            "say which coordinator: --data-dir DIR (or COVEY_HOME) on its machine, "
            "or --server HOST:PORT --identity DIR from another one"
        )
    return Target(data_dir)


def where_options(command: F) -> F:
    """Give a command `--data-dir`, `--server` and `--identity`, as they are."""
    for option in (
        click.option("--identity", type=FOLDER, help="With --server: folder with your key and certificate."),
        click.option("--server", type=Address(), help="The coordinator's address, from another machine."),
        click.option("--data-dir", type=FOLDER, envvar="COVEY_HOME", help="The coordinator's data directory."),
    ):
        command = option(command)
    return command


def target_options(command: F) -> F:
    """Give a command the options that say which coordinator is meant, as `target: Target`."""

    @where_options
    @functools.wraps(command)
    def wrapped(*args: Any, data_dir: Path | None, server: str | None, identity: Path | None, **kwargs: Any) -> Any:
        return command(*args, target=target_of(data_dir, server, identity), **kwargs)

    return wrapped  # type: ignore[return-value]


def json_option(command: F) -> F:
    """Give a command `--json`, as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def log_options(command: F) -> F:
    """Give a daemon its options for logging, as `log_format` and `log_level`."""
    level = click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        show_default=True,
        help="The least important lines to log.",
    )
    form = click.option(
        "--log-format",
        type=click.Choice(["console", "json"]),
        default="console",
        show_default=True,
        help="Log lines for people, or for machines.",
    )
    return form(level(command))


class VersionName(click.ParamType[Any]):
    """A version of a run's model: its number, `newest` or `best`."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Check a version."""
        if value in ("newest", "best"):
            return str(value)
        if not re.fullmatch(r"\d{1,9}", str(value)):
            self.fail(f"{value!r} is not a version; choose a number, 'newest' or 'best'", param, ctx)
        return int(value)


no_color_option = click.option(
    "--no-color", is_flag=True, help="Draw without colours, as with NO_COLOR in the environment."
)
"""`no_color: bool`, for what is drawn on a terminal."""


def watch_options(command: F) -> F:
    """Give a command that queues a run `--watch`, as `watching: bool`, and with it `--no-color`."""

    @click.option("--watch", "watching", is_flag=True, help="Then follow it to its end; exit code 1 if it fails.")
    @no_color_option
    @functools.wraps(command)
    def wrapped(*args: Any, watching: bool, no_color: bool, **kwargs: Any) -> Any:
        if no_color and not watching:
            raise click.UsageError("--no-color is for what --watch draws: give that as well")
        return command(*args, watching=watching, no_color=no_color, **kwargs)

    return wrapped  # type: ignore[return-value]
