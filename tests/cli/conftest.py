"""The commands, run in a folder with a few small modules in it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.wat import wat2wasm
from wasm_middleware.cli.main import main

ROOT = Path(__file__).parents[2]
PLUGINS = ROOT / "example_app" / "plugins"

#: A plugin that does nothing; `%s` takes more imports, and then more exports.
WAT = """(module
  %s
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))
  %s)"""
MODULES = {
    "plain": ("", ""),
    "refusing": (
        "",
        '(func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 0))',
    ),
    "spinning": (
        "",
        """(func (export "proxy_on_configure") (param i32 i32) (result i32)
        (loop $again (br $again)) (i32.const 1))""",
    ),
    "unknown-import": ('(import "env" "proxy_from_the_future" (func (param i32)))', ""),
    "wrong-type": ('(import "env" "proxy_log" (func (param i64) (result i32)))', ""),
}

Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder; what applications in it leave in the interpreter is taken back."""
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)

    for name in ("redact", "security-headers", "rate-limit"):
        shutil.copy(PLUGINS / f"{name}.wasm", tmp_path)

    for name, parts in MODULES.items():
        (tmp_path / f"{name}.wasm").write_bytes(wat2wasm(WAT % parts))

    yield tmp_path
    sys.path[:] = path

    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


@pytest.fixture
def run() -> Run:
    """Run a command; standard output and error are kept apart."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, prog_name="wasm-middleware")

    return run


@pytest.fixture
def check(folder: Path, run: Run) -> Run:
    """Check a file with this text."""

    def check(text: str, *arguments: str) -> Result:
        (folder / "plugins.yaml").write_text(text, encoding="utf-8")
        return run("check", "plugins.yaml", *arguments)

    return check
