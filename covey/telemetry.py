"""Logging for every program of Covey: structlog to standard error, for people (console) or machines (json)."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

from covey.texts import printable

if TYPE_CHECKING:
    import structlog

    from covey.errors import CoveyError

LogFormat = Literal["console", "json"]


def import_without_rich(module: str = "structlog") -> None:
    """Import a module that imports rich wherever it is installed, as if it were not; rich can be imported afterwards.

    It is 4 MB of each process, for tracebacks that nobody asks for. A daemon or worker calls this before it imports
    anything that logs; afterwards it does nothing.
    """
    if "rich" in sys.modules or module in sys.modules:
        return
    sys.modules["rich"] = cast(Any, None)
    try:
        importlib.import_module(module)
    finally:
        del sys.modules["rich"]


def _drop(*_: Any) -> Any:
    import structlog

    raise structlog.DropEvent


@contextlib.contextmanager
def quiet_by_default() -> Iterator[None]:
    """Log nothing inside the context, unless the program has set up logging of its own: for library calls."""
    import structlog

    if structlog.is_configured():
        yield
        return
    structlog.configure(processors=[_drop])
    try:
        yield
    finally:
        structlog.reset_defaults()


def _printable_values(logger: object, name: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Much of what is logged was written by others: none of it steers the terminal that it is read on."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = printable(value)
        elif not isinstance(value, int | float | None):
            event[key] = printable(str(value)) if isinstance(value, BaseException) else value
    return event


class _Lossy:
    """A program's log that goes on where it cannot be written: a disk that is full costs the lines, and no more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


@contextlib.contextmanager
def heard_by(listener: Callable[[Mapping[str, Any]], object]) -> Iterator[None]:
    """Inside the context somebody else, too, is told what is logged, as it is written; in whichever thread logs."""
    import structlog

    def pass_on(logger: object, name: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        listener(event)
        return event

    processors = structlog.get_config()["processors"]  # which the loggers that there are have, too
    processors.insert(len(processors) - 1, pass_on)
    try:
        yield
    finally:
        processors.remove(pass_on)


def configure_logging(log_format: LogFormat = "console", level: str = "info") -> None:
    """Set up logging once, at the start of a program."""
    import structlog

    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _printable_values,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Lossy(sys.stderr))),
    )


def cannot_run(log: structlog.typing.FilteringBoundLogger, daemon: str, error: CoveyError) -> int:
    """Say why a daemon ("the node") cannot run, or go on; the exit code of its process."""
    log.error(f"{daemon} cannot run", code=error.code, error=str(error))
    return 1
