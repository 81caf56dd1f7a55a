"""What commands print: results to stdout, what is wrong to stderr, colour for people alone.

On a terminal the lines go through rich; anywhere else, and with `NO_COLOR`, they are plain text
that can be grepped. Nothing is ever wrapped or cut to a width.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TextIO

import click
from rich.console import Console

from wasm_middleware.abi.enums import LogLevel
from wasm_middleware.proxy_wasm.plugin import PYTHON_LEVELS

__all__ = [
    "columns",
    "echo",
    "echo_json",
    "error",
    "logging_to_stderr",
    "silent_log",
    "status",
    "warning",
]

_LOGGER: Final = "wasm_middleware"
_GAP: Final = "  "


def echo(text: str = "", *, style: str = "") -> None:
    """Print a line of the result."""
    _print(sys.stdout, text, style)


def echo_json(value: object) -> None:
    """Print the whole result as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def error(text: str) -> None:
    """Print something that is wrong."""
    _print(sys.stderr, text, "red")


def warning(text: str) -> None:
    """Print something that is odd, and does not make the command fail."""
    _print(sys.stderr, f"warning: {text}", "yellow")


def columns(rows: Iterable[Sequence[str]], *, indent: str = _GAP) -> list[str]:
    """The lines of a table: the cells of `rows`, one below the other."""
    cells = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [(indent + _GAP.join(map(str.ljust, row, widths))).rstrip() for row in cells]


@contextmanager
def status(text: str) -> Iterator[None]:
    """Show that something takes its time, to those who watch."""
    if not _is_terminal(sys.stderr):
        yield
        return

    with Console(stderr=True).status(text):
        yield


@contextmanager
def logging_to_stderr(level: str) -> Iterator[None]:
    """Show what the package and its plugins log, from `level` on, while a command runs."""
    logger = logging.getLogger(_LOGGER)
    number = PYTHON_LEVELS[LogLevel[level.upper()]]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    # On the handler, since a plugin's logger has a level of its own.
    handler.setLevel(number)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(number)
    # An application that is imported may bring handlers for everything.
    logger.propagate = False

    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


@contextmanager
def silent_log() -> Iterator[None]:
    """Keep what is logged meanwhile to itself."""
    logging.disable()

    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _print(stream: TextIO, text: str, style: str) -> None:
    if _is_terminal(stream):
        console = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)
        console.print(text, style=style or None)
    else:
        click.echo(text, file=stream)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")
