"""A library call logs nothing by itself; a program that has set up logging hears of everything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from covey.telemetry import configure_logging, quiet_by_default


@pytest.fixture
def unconfigured() -> Iterator[None]:
    before, was = structlog.get_config(), structlog.is_configured()
    structlog.reset_defaults()
    yield
    if was:
        structlog.configure(**before)
    else:
        structlog.reset_defaults()


def speak() -> None:
    structlog.get_logger(room="test").error("something happened")


@pytest.mark.usefixtures("unconfigured")
def test_a_library_call_is_quiet_and_leaves_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet_by_default():
        speak()
    assert capsys.readouterr() == ("", "")
    assert not structlog.is_configured()
    speak()
    assert "something happened" in "".join(capsys.readouterr())


@pytest.mark.usefixtures("unconfigured")
def test_a_program_that_logs_goes_on_logging(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("console", "info")
    with quiet_by_default():
        speak()
    assert "something happened" in capsys.readouterr().err
