"""Reads module files, and says what is wrong with one before an engine does.

An engine knows the same, later and in its own words; here the mistake has a line in the file.
What is read to be run is checked again: the file may have changed since.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from wasm_middleware.config.fields import CONTROL, DIGEST_PATTERN
from wasm_middleware.config.problems import Loc, Mistake, Problem
from wasm_middleware.config.settings import PluginSettings
from wasm_middleware.config.source import Source
from wasm_middleware.errors import ConfigError, Diagnostic
from wasm_middleware.limits import MAX_MODULE_BYTES, MIB

__all__ = ["check_modules", "read_module"]

_MAGIC: Final = b"\0asm"
#: https://webassembly.github.io/spec/core/binary/modules.html#binary-module
_MODULE: Final = b"\x01\0\0\0"
#: https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md
_COMPONENT: Final = b"\x0d\0\x01\0"
_HEADER_BYTES: Final = 8
#: What is found under a wrong name, by its first bytes.
_LOOKALIKES: Final = {
    b"(module": "it is text; compile it with wat2wasm",
    b"version ": "it may be a Git LFS pointer; run git lfs pull",
    b"PK\x03\x04": "it is an archive; unpack it",
    b"\x1f\x8b": "it is compressed; unpack it",
}


def read_module(plugin: PluginSettings, source: Source) -> bytes:
    """Read a plugin's module; raises `ConfigError` where it is not what the settings promise."""
    try:
        return _read(plugin.path, plugin.sha256, whole=True)
    except Mistake as mistake:
        loc = source.plugin(plugin.name)
        diagnostics = [source.problem(loc, problem) for problem in mistake.problems]

    raise ConfigError(diagnostics)


def check_modules(source: Source) -> Iterator[Diagnostic]:
    """Report every module of a configuration that `read_module` would refuse."""
    plugins = source.values.get("plugins")

    for index, entry in enumerate(plugins if isinstance(plugins, list) else ()):
        path = entry.get("path") if isinstance(entry, Mapping) else None

        if not isinstance(path, str) or not path or CONTROL.search(path):
            continue  # reported where it is wrong

        try:
            digest = _digest(entry.get("sha256"))
            _read(source.folder / path, digest, whole=digest is not None)
        except Mistake as mistake:
            loc: Loc = ("plugins", index)
            yield from (source.problem(loc, problem) for problem in mistake.problems)


def _read(path: Path, digest: str | None, *, whole: bool) -> bytes:
    try:
        # Opening a pipe would wait for somebody to write.
        status = path.stat()

        if not stat.S_ISREG(status.st_mode):
            raise _wrong("{seen} is not a file", "name a .wasm file", path)

        with path.open("rb") as stream:
            content = stream.read(MAX_MODULE_BYTES + 1 if whole else _HEADER_BYTES)
    except FileNotFoundError:
        raise _wrong("no such file: {seen}", "", path) from None
    except OSError as error:
        raise _wrong(f"can't read {{seen}}: {error.strerror}", "", path) from None

    if max(len(content), status.st_size) > MAX_MODULE_BYTES:
        raise _wrong(f"{{seen}} is larger than {MAX_MODULE_BYTES // MIB}MB", "", path)

    _check_header(content, path)

    actual = hashlib.sha256(content).hexdigest()

    if digest and actual != digest.lower():
        message = f"the file's SHA-256 is {actual}"
        raise Mistake(Problem(message, "another file than the one you meant?", below=("sha256",)))

    return content


def _check_header(content: bytes, path: Path) -> None:
    if not content:
        raise _wrong("{seen} is empty", "", path)

    if not content.startswith(_MAGIC):
        hint = next((hint for head, hint in _LOOKALIKES.items() if content.startswith(head)), "")
        raise _wrong("{seen} is not a WebAssembly module", hint, path)

    if len(content) < _HEADER_BYTES:
        raise _wrong("{seen} is cut off", "", path)

    version = content[len(_MAGIC) : _HEADER_BYTES]

    if version == _COMPONENT:
        message = "{seen} is a component, which is not available in this version of wasm-middleware"
        raise _wrong(message, "build a core module: --target wasm32-wasip1", path)

    if version != _MODULE:
        raise _wrong("{seen} has a WebAssembly version that is not known", "", path)


def _wrong(message: str, hint: str, path: Path) -> Mistake:
    return Mistake(Problem(message, hint, os.fspath(path), below=("path",)))


def _digest(value: object) -> str | None:
    # Anything else is reported where it is wrong.
    return value if isinstance(value, str) and re.fullmatch(DIGEST_PATTERN, value) else None
