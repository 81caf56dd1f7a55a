"""The configuration: any file gives settings, or says where it is wrong.

- Whatever the bytes, `load_settings` gives `Settings` or raises `ConfigError`, and nothing else.
- Each mistake has a message, names the file, and a line and a column that the file has. Only what
  is wrong with the file as a whole (it is empty, too large) has none.
- No message holds the value of an environment variable, and no error hangs on the one raised.
- A second reading gives the same.
- It takes a bounded time, for as many bytes: aliases, nesting and long numbers don't add up.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from wasm_middleware.config import Settings, document, load_settings, tree
from wasm_middleware.errors import ConfigError, Diagnostic

#: The environment of the targets: one variable to be found, one to be looked for in vain.
_NAME, _SECRET = "FUZZED", "swordfish-8d1f"
#: Values in a file, for the targets: a bomb has gone off long before the real cap.
_MOST_VALUES = 1_000
#: Seconds of CPU: twenty times what the worst input takes that was ever seen.
_MOST_TIME = 4.0
#: Without a place: what the whole file is, and PyYAML's one error that has none.
_PLACELESS = ("the file is empty", "is larger than", "an escape stands for no character")


def fuzz(data: bytes) -> None:
    """Check the properties for `data` as the content of a file."""
    with (
        patch.dict(os.environ, {_NAME: _SECRET}),
        patch.object(tree, "MAX_VALUES", _MOST_VALUES),
        patch.object(document, "MAX_VALUES", _MOST_VALUES),
        tempfile.TemporaryDirectory() as folder,
    ):
        path = Path(folder, "plugins.yaml")
        path.write_bytes(data)
        begin = time.thread_time()
        first = _loaded(path)
        spent = time.thread_time() - begin
        assert spent < _MOST_TIME, f"{spent:.1f} s"
        second = _loaded(path)

    if isinstance(first, ConfigError):
        assert isinstance(second, ConfigError)
        assert first.diagnostics == second.diagnostics
        _check_error(first, str(path), data)
    else:
        assert isinstance(second, Settings)
        assert repr(first) == repr(second)


def _loaded(path: Path) -> Settings | ConfigError:
    try:
        return load_settings(path, check_files=False)
    except ConfigError as error:
        return error


def _check_error(error: ConfigError, file: str, data: bytes) -> None:
    assert error.diagnostics, "an error without a mistake"
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    assert _SECRET not in str(error), "the value of a variable"

    # PyYAML's line ends.
    text = data.decode("utf-8-sig", "replace")
    lines = text.replace("\r\n", "\n").translate(
        dict.fromkeys(map(ord, "\r\x85\u2028\u2029"), "\n")
    )

    for diagnostic in error.diagnostics:
        _check_place(diagnostic, file, lines.split("\n"))


def _check_place(diagnostic: Diagnostic, file: str, lines: list[str]) -> None:
    assert diagnostic.message
    assert diagnostic.file == file
    assert str(diagnostic).startswith(file)

    if not diagnostic.line:
        assert any(part in diagnostic.message for part in _PLACELESS), str(diagnostic)
        return

    assert 1 <= diagnostic.line <= len(lines), str(diagnostic)
    assert 1 <= diagnostic.column <= len(lines[diagnostic.line - 1]) + 1, str(diagnostic)
